"""The settings of the inference service; nothing else in it reads the environment."""

import json
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import Networks, Origins, Port, ServiceSettings, ServiceUrl

_BODIES_IN_FLIGHT = 32
_BODIES_IN_FLIGHT_MIN = 4
"""An account may have half of the bytes, and its values count beside its bodies."""


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


class InferenceSettings(ServiceSettings):
    """Read once, at start. Unset values are those of a one-machine installation."""

    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8002
    """Port to listen on."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of the proxies in front, separated by commas or spaces: their
    `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    cors_origins: Origins = Field(default_factory=tuple)
    """Origins of web pages that may call this service, separated by commas or spaces."""
    auth_url: ServiceUrl = ""
    """The token issuer. Default: the local auth service."""
    auth_address: ServiceUrl = Field(default_factory=lambda data: data["auth_url"])
    """Where auth is reached from here, if not at the issuer's URL."""
    billing_url: ServiceUrl = ""
    """Where usage goes. Default: the local billing service."""
    client_id: str = ""
    """This service's own OAuth client. Default: from `credentials.json`."""
    client_secret: SecretStr = SecretStr("")
    """Its secret. Default: from `credentials.json`."""
    model_store: str = ""
    """fsspec URL of the model store. Default: `models/` in the state folder."""
    trusted_keys: Path = Path()
    """Ed25519 public key (PEM) or folder of them. Default: `keys/trusted/` in the state folder."""
    model_poll_seconds: float = Field(default=2.0, gt=0, le=3600)
    """How often a new release is looked for, in seconds."""
    models_max_bytes: int = Field(default=2**30, ge=0)
    """Bytes of model files in memory, beyond which the least used are unloaded; 0: no bound."""
    allow_joblib: bool = False
    """Whether models that could not be exported may be unpickled. That runs code of theirs."""
    cache_dir: Path = Path()
    """Where fetched models are kept, on a local disk. Default: `cache/` in the state folder."""
    cache_max_bytes: int = Field(default=4 * 2**30, ge=0)
    """Bytes of them, beyond which the least used are deleted, but never what is live."""
    journal_dir: Path = Path()
    """The usage journal's folder, on a local disk. Default: `journal/` in the state folder."""
    journal_max_bytes: int = Field(default=2**30, ge=2**20)
    """Bytes of usage that may wait for billing; beyond them predictions are answered 503."""
    journal_sync: Literal["process", "disk"] = "process"
    """What a journalled event survives: the death of the process, or of the machine (fsync)."""
    terms_max_age_seconds: float = Field(default=3600, gt=0, le=86_400)
    """How long postpaid accounts go on under their last terms while billing is away, in seconds."""
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024, le=2**30)
    """A larger prediction request is answered 413."""
    max_rows: int = Field(default=10_000, ge=1)
    """A prediction request with more rows is answered 422."""
    max_in_flight: int = Field(default=1024, ge=1)
    """Predictions being answered at once; beyond them, or an account's share of them, 503."""
    max_body_bytes_in_flight: int = Field(
        default_factory=lambda data: _BODIES_IN_FLIGHT * data["max_body_bytes"], ge=0
    )
    """Bytes of prediction requests in memory at once, complete or not; beyond them, or an account's
    share of them, 503. Default: 32 times INFERENCE_MAX_BODY_BYTES."""
    predict_threads: int = Field(default_factory=_cpus, ge=1, le=1024)
    """Slow predictions computed at once. Default: one for each CPU that this process may use."""
    drift_rows_per_second: int = Field(default=1_000, ge=0)
    """Rows of each version, a second, whose values are compared with training; 0: none."""
    feedback_store: str = ""
    """fsspec URL where true outcomes of predictions are kept. Default: `feedback/` in the state
    folder."""
    feedback_rows: bool = False
    """Whether they are kept with the rows that were asked, which may be personal data."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log line to write."""

    auth_port: int = Field(default=8001, validation_alias=AliasChoices("AUTH_PORT"))
    """Port of the local auth service, when INFERENCE_AUTH_URL is unset."""
    billing_port: int = Field(default=8003, validation_alias=AliasChoices("BILLING_PORT"))
    """Port of the local billing service, when INFERENCE_BILLING_URL is unset."""

    @model_validator(mode="before")
    @classmethod
    def _local_defaults(cls, given: dict[str, object]) -> dict[str, object]:
        """Fill what is unset from the state folder and the local ports."""
        home = Path(str(given.get("TOLLGATE_HOME", ".tollgate"))).absolute()
        credentials = _local_credentials(home / "credentials.json")
        defaults: dict[str, object] = {
            "auth_url": f"http://127.0.0.1:{given.get('AUTH_PORT', 8001)}",
            "billing_url": f"http://127.0.0.1:{given.get('BILLING_PORT', 8003)}",
            "model_store": f"file://{home}/models",
            "feedback_store": f"file://{home}/feedback",
            "trusted_keys": home / "keys" / "trusted",
            "cache_dir": home / "cache",
            "journal_dir": home / "journal",
            **credentials,
        }
        return defaults | given

    @model_validator(mode="after")
    def _has_room_for_a_body(self) -> Self:
        if self.max_body_bytes_in_flight < _BODIES_IN_FLIGHT_MIN * self.max_body_bytes:
            raise ValueError(
                "INFERENCE_MAX_BODY_BYTES_IN_FLIGHT must be at least "
                f"{_BODIES_IN_FLIGHT_MIN} times INFERENCE_MAX_BODY_BYTES"
            )
        return self

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        if not (self.client_id and self.client_secret.get_secret_value()):
            raise ValueError("INFERENCE_CLIENT_ID and INFERENCE_CLIENT_SECRET are needed")
        return self


def _local_credentials(path: Path) -> dict[str, object]:
    """The service's own client as the one-machine runner wrote it, if it did."""
    try:
        client = json.loads(path.read_text())["services"]["inference"]
        return {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
