"""Where models, data and feedback are stored, who signs versions, and whose signatures count."""

import getpass
import os
import socket
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.keys import TrustedKeys, create_signing_key, load_signing_key


def _shared(name: str) -> AliasChoices:
    """Return the variables of a setting that inference has too; the trainer's comes first."""
    return AliasChoices(f"TRAINER_{name}", f"INFERENCE_{name}")


class StoreSettings(BaseSettings):
    """Settings of everything that writes to the model store; by default all in the state folder.

    Inference's variables apply too, so that the same commands run where only it is configured.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRAINER_",
        frozen=True,
        use_attribute_docstrings=True,
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(default=Path(".tollgate"), validation_alias="TOLLGATE_HOME")
    """State folder, which contains the default paths of a one-machine installation."""
    model_store: str | None = Field(default=None, validation_alias=_shared("MODEL_STORE"))
    """fsspec URL of the model store; the same as inference's."""
    data_store: str | None = None
    """fsspec URL of the data store, which has a folder per model."""
    feedback_store: str | None = Field(default=None, validation_alias=_shared("FEEDBACK_STORE"))
    """fsspec URL of the feedback store; the same as inference's."""
    signing_key: Path | None = None
    """Ed25519 private key (PEM). By default, a key is created in the state folder."""
    trusted_keys: Path | None = Field(default=None, validation_alias=_shared("TRUSTED_KEYS"))
    """Trusted Ed25519 public keys: a PEM file or a folder; the same as inference's."""
    actor: str = Field(default_factory=lambda: _user_at_host())
    """The author of releases, for the record; by default user@host."""
    allow_joblib: bool = Field(default=False, validation_alias=_shared("ALLOW_JOBLIB"))
    """Whether inference serves pickles (versions without an ONNX form). If not, such versions are
    not released, and a live one is not opened for comparison."""

    @property
    def model_store_url(self) -> str:
        """Return the URL of the model store."""
        return self.model_store or f"file://{self.home.absolute()}/models"

    @property
    def data_store_url(self) -> str:
        """Return the URL of the data store."""
        return self.data_store or f"file://{self.home.absolute()}/data"

    @property
    def feedback_store_url(self) -> str:
        """Return the URL of the feedback store."""
        return self.feedback_store or f"file://{self.home.absolute()}/feedback"

    @property
    def trusted_dir(self) -> Path:
        """Return the folder of public keys in the state folder."""
        return self.home / "keys" / "trusted"

    @property
    def signing_key_file(self) -> Path:
        """Return the path of the private key, which may not exist yet."""
        return self.signing_key or self.home / "keys" / "signing.pem"

    def load_signing_key(self) -> Ed25519PrivateKey:
        """Load the signing key; create it if none is configured.

        Raises:
            StoreError: the key cannot be read or created.
        """
        if self.signing_key:
            return load_signing_key(self.signing_key)
        return create_signing_key(self.signing_key_file, self.trusted_dir)

    def load_trusted_keys(self) -> TrustedKeys:
        """Load the trusted keys.

        Without TRAINER_TRUSTED_KEYS, trust the configured signing key, or else the state folder's
        public keys.

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
