"""The trainer's settings, from the environment."""

import getpass
import os
import socket
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from services.common.model_store import TrustedKeys, create_signing_key, load_signing_key
from services.common.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """Settings of `tollgate train` and `tollgate models`; by default all in the state folder."""

    model_config = SettingsConfigDict(env_prefix="TRAINER_")

    model_store: str | None = None
    """fsspec URL of the model store."""
    data_store: str | None = None
    """fsspec URL of the data store, which has a folder per model."""
    feedback_store: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TRAINER_FEEDBACK_STORE", "INFERENCE_FEEDBACK_STORE"),
    )
    """fsspec URL of the feedback store; the same as inference's."""
    signing_key: Path | None = None
    """Ed25519 private key (PEM). By default, a key is created in the state folder."""
    trusted_keys: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("TRAINER_TRUSTED_KEYS", "INFERENCE_TRUSTED_KEYS"),
    )
    """Trusted Ed25519 public keys: a PEM file or a folder; the same as inference's."""
    actor: str = Field(default_factory=lambda: _user_at_host())
    """The author of releases, for the record; by default user@host."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all randomness in training."""
    commit: str | None = Field(
        default=None, validation_alias=AliasChoices("TRAINER_COMMIT", "GITHUB_SHA")
    )
    """Code commit to record in the manifest."""
    max_data_bytes: int = Field(default=1024**3, gt=0)
    """Maximum data size; training uses up to four times as much memory."""
    allow_joblib: bool = Field(
        default=False,
        validation_alias=AliasChoices("TRAINER_ALLOW_JOBLIB", "INFERENCE_ALLOW_JOBLIB"),
    )
    """Whether inference serves pickles (versions without an ONNX form). If not, such versions are
    not released, and a live one is not opened for comparison."""

    @property
    def model_store_url(self) -> str:
        """Returns the URL of the model store."""
        return self.model_store or f"file://{self.home.absolute()}/models"

    @property
    def data_store_url(self) -> str:
        """Returns the URL of the data store."""
        return self.data_store or f"file://{self.home.absolute()}/data"

    @property
    def feedback_store_url(self) -> str:
        """Returns the URL of the feedback store."""
        return self.feedback_store or f"file://{self.home.absolute()}/feedback"

    @property
    def trusted_dir(self) -> Path:
        """Returns the folder of public keys in the state folder."""
        return self.home / "keys" / "trusted"

    @property
    def signing_key_file(self) -> Path:
        """Returns the path of the private key, which may not exist yet."""
        return self.signing_key or self.home / "keys" / "signing.pem"

    def load_signing_key(self) -> Ed25519PrivateKey:
        """Loads the signing key; creates one in the state folder if none is configured.

        Raises:
            StoreError: the key cannot be read or created.
        """
        if self.signing_key:
            return load_signing_key(self.signing_key)
        return create_signing_key(self.signing_key_file, self.trusted_dir)

    def load_trusted_keys(self) -> TrustedKeys:
        """Loads the trusted keys.

        Without TRAINER_TRUSTED_KEYS, these are the configured signing key, or else the public keys
        of the state folder.

        Raises:
            StoreError: no key can be read.
        """
        if self.trusted_keys:
            return TrustedKeys.load(self.trusted_keys)
        key = self.load_signing_key()
        return (
            TrustedKeys([key.public_key()])
            if self.signing_key
            else TrustedKeys.load(self.trusted_dir)
        )


def _user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"  # container users may have no passwd entry
    return f"{user}@{socket.gethostname()}"
