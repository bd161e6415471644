"""Where the trainer reads and writes: the one place where it looks at the environment."""

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
    """Settings of `tollgate train` and `tollgate models`; the defaults lie in the state folder."""

    model_config = SettingsConfigDict(env_prefix="TRAINER_")

    model_store: str | None = None
    """fsspec URL of the store that versions are published to."""
    data_store: str | None = None
    """fsspec URL under which each model has a folder of data."""
    feedback_store: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TRAINER_FEEDBACK_STORE", "INFERENCE_FEEDBACK_STORE"),
    )
    """fsspec URL where inference keeps true outcomes; as inference has it."""
    signing_key: Path | None = None
    """Ed25519 private key (PEM); the one in the state folder is made when it is missing."""
    trusted_keys: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("TRAINER_TRUSTED_KEYS", "INFERENCE_TRUSTED_KEYS"),
    )
    """Ed25519 public keys (a PEM file or a folder) whose versions count; as inference has it."""
    actor: str = Field(default_factory=lambda: _user_at_host())
    """Who releases, for the record; by default user@host."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything random in a training."""
    commit: str | None = Field(
        default=None, validation_alias=AliasChoices("TRAINER_COMMIT", "GITHUB_SHA")
    )
    """Commit of the code, for the manifest."""
    max_data_bytes: int = Field(default=1024**3, gt=0)
    """Larger data is refused before any of it is read; training takes up to four times as much."""
    allow_joblib: bool = Field(
        default=False,
        validation_alias=AliasChoices("TRAINER_ALLOW_JOBLIB", "INFERENCE_ALLOW_JOBLIB"),
    )
    """Whether inference serves pickles (versions without an ONNX form). If not, they are not
    released, and that of a live version is not opened to compare with it."""

    @property
    def model_store_url(self) -> str:
        """URL of the model store."""
        return self.model_store or f"file://{self.home.absolute()}/models"

    @property
    def data_store_url(self) -> str:
        """URL of the data store."""
        return self.data_store or f"file://{self.home.absolute()}/data"

    @property
    def feedback_store_url(self) -> str:
        """URL of the true outcomes."""
        return self.feedback_store or f"file://{self.home.absolute()}/feedback"

    @property
    def trusted_dir(self) -> Path:
        """The state folder's own public keys."""
        return self.home / "keys" / "trusted"

    @property
    def signing_key_file(self) -> Path:
        """The private key, whether or not it has been made."""
        return self.signing_key or self.home / "keys" / "signing.pem"

    def load_signing_key(self) -> Ed25519PrivateKey:
        """The key to sign with.

        Raises:
            StoreError: it was named but cannot be read, or cannot be made.
        """
        if self.signing_key:
            return load_signing_key(self.signing_key)
        return create_signing_key(self.signing_key_file, self.trusted_dir)

    def load_trusted_keys(self) -> TrustedKeys:
        """The keys to trust: those named, else our own signing key's public half, or its folder.

        Raises:
            StoreError: there is no key to be read.
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
        user = f"uid-{os.getuid()}"  # a container's user without an entry in passwd
    return f"{user}@{socket.gethostname()}"
