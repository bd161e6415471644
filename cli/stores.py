"""Open the model store for a command, and turn its errors into one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_settings import SettingsConfigDict

from cli.output import exit_with_error
from registry.keys import TrustedKeys
from registry.records import StoreError
from registry.releases import ReleaseManager
from registry.settings import StoreSettings
from registry.store import ModelStore
from services.common.settings import ServiceSettings


class _Settings(StoreSettings, ServiceSettings):
    """The settings of every command that uses the stores."""

    model_config = SettingsConfigDict(env_prefix="TRAINER_")


def load_settings() -> StoreSettings:
    """Read from the environment where the stores are, and which keys are trusted.

    Raises:
        SystemExit: a value is invalid; one line on stderr names the variable.
    """
    return _Settings.load()


def open_store(*, read_only: bool) -> tuple[ModelStore, TrustedKeys]:
    """Open the configured model store, and load the trusted keys.

    Raises:
        StoreError: the store or a key cannot be read.
    """
    settings = load_settings()
    store = ModelStore(settings.model_store_url, read_only=read_only)
    return store, settings.load_trusted_keys()


def open_release_manager() -> ReleaseManager:
    """Return the writer of release records, with the configured actor as author.

    Raises:
        StoreError: the store or a key cannot be read.
    """
    settings = load_settings()
    store, trusted = open_store(read_only=False)
    return ReleaseManager(store, trusted, settings.actor, allow_joblib=settings.allow_joblib)


@contextmanager
def failures_as_one_line(*others: type[Exception]) -> Iterator[None]:
    """Turn an error of the store, or another expected one, into one line and exit code 1."""
    expected: tuple[type[Exception], ...] = (StoreError, *others)
    try:
        yield
    except expected as error:
        exit_with_error(str(error))
