"""Settings of the functions, from the environment."""

import re
from dataclasses import dataclass
from typing import Annotated, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings, ServiceUrl


@dataclass(frozen=True)
class Place:
    """A bucket and a prefix, which is "" or ends with a slash."""

    bucket: str
    prefix: str


def parse_place(url: str) -> Place:
    """Parse `gs://bucket[/prefix]`.

    Raises:
        ValueError: the URL has a different form.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if scheme not in ("gs", "gcs") or not bucket:
        raise ValueError("must be gs://bucket or gs://bucket/prefix")
    return Place(bucket, f"{prefix}/" if prefix else "")


def _check_place(url: str) -> str:
    parse_place(url)
    return url


BucketUrl = Annotated[str, AfterValidator(_check_place)]


def _clean_word(secret: SecretStr) -> SecretStr:
    """Strip the line break that `echo` adds to a secret; a header must not contain it."""
    text = secret.get_secret_value().strip()
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be one word of ASCII characters")
    return SecretStr(text)


def _rsa_key(secret: SecretStr) -> SecretStr:
    try:
        key = load_pem_private_key(secret.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("must be an RSA private key in PEM, without a password")
    return secret


class PipelineSettings(ServiceSettings):
    """Settings of both functions. They call GitHub with a token or as a GitHub App."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_")

    store: BucketUrl
    """The store that the function watches: gs://bucket[/prefix]."""
    records: BucketUrl
    """The store of the function's records, ideally a separate bucket."""
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository whose workflows to start: owner/name."""
    github_api_url: ServiceUrl = "https://api.github.com"
    """GitHub's REST API."""
    github_token: Annotated[SecretStr, AfterValidator(_clean_word)] | None = None
    """Fine-grained token with contents: write (and actions: read) on the repository."""
    github_app_id: str | None = None
    """Instead of a token: the GitHub App's id, its installation's id, and its key (PEM)."""
    github_installation_id: str | None = None
    """See `github_app_id`."""
    github_private_key: Annotated[SecretStr, AfterValidator(_rsa_key)] | None = None
    """See `github_app_id`."""
    quiet_seconds: float = Field(default=60.0, ge=0, le=200)
    """A drop without _SUCCESS ends when no part has arrived for this long."""
    max_event_age_seconds: float = Field(default=86400.0, gt=0)
    """Events of older objects are ignored."""
    sweep_max_age_seconds: float = Field(default=604800.0, gt=0)
    """Sweeps ignore older drops; records must be kept for longer."""
    give_up_seconds: float = Field(default=43200.0, gt=0)
    """Age of an object, in seconds, after which a failing dispatch becomes a dead letter."""
    claim_seconds: float = Field(default=15.0, ge=0, le=120)
    """How long a delivery waits for another one that handles the same event."""
    deadline_seconds: float = Field(default=240.0, gt=0, le=520)
    """Time limit of one delivery; must be less than the function's timeout."""
    storage_emulator_host: str = Field(default="", validation_alias="STORAGE_EMULATOR_HOST")
    """URL of a GCS emulator."""
    metadata_host: str = Field(
        default="metadata.google.internal", validation_alias="GCE_METADATA_HOST"
    )
    """Google's metadata server, which issues the function's access tokens."""

    @model_validator(mode="after")
    def _has_github_credentials(self) -> Self:
        app = (self.github_app_id, self.github_installation_id, self.github_private_key)
        if self.github_token is None and not all(app):
            raise ValueError(
                "PIPELINE_GITHUB_TOKEN is required, or else PIPELINE_GITHUB_APP_ID with "
                "PIPELINE_GITHUB_INSTALLATION_ID and PIPELINE_GITHUB_PRIVATE_KEY"
            )
        return self

    @property
    def watched(self) -> Place:
        """Return the watched store."""
        return parse_place(self.store)

    @property
    def record_store(self) -> Place:
        """Return where claims, dispatches and dead letters are stored."""
        return parse_place(self.records)
