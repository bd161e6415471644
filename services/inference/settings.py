"""Settings of the inference service; no other module of it reads the environment."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import (
    Hosts,
    Networks,
    Origins,
    Port,
    PublicUrls,
    ServiceUrl,
    local_client,
)

_BODIES_IN_FLIGHT = 32
_BODIES_IN_FLIGHT_MIN = 4
"""One account gets half of the bytes, and decoded values count in addition to the bodies."""


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


class InferenceSettings(PublicUrls):
    """Read once, at start. The defaults suit an installation on one machine."""

    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8002
    """Port to listen on."""
    grpc_port: Port | None = None
    """Port of the Open Inference Protocol over gRPC; unset: off. Needs the extra `grpc`."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of the proxies in front, separated by commas or spaces. Their
    `X-Forwarded-For` and `X-Forwarded-Proto` headers are trusted."""
    trusted_hosts: Hosts = Field(default_factory=tuple)
    """Host names that requests may name, such as `inference.example.com` or `*.example.com`,
    separated by commas or spaces; other requests get 421. Unset: any."""
    cors_origins: Origins = Field(default_factory=tuple)
    """Origins of web pages that may call this service, separated by commas or spaces."""
    auth_url: ServiceUrl = ""
    """The token issuer. Default: the local auth service."""
    auth_address: ServiceUrl = Field(default_factory=lambda data: data["auth_url"])
    """The URL at which this service reaches auth, if it is not the issuer's URL."""
    billing_url: ServiceUrl = ""
    """The billing service. Default: the local one."""
    client_id: str = ""
    """This service's own OAuth client. Default: from `credentials.json`."""
    client_secret: SecretStr = SecretStr("")
    """Its secret. Default: from `credentials.json`."""
    model_store: str = ""
    """fsspec URL of the model store. Default: `models/` in the state folder."""
    trusted_keys: Path = Path()
    """Ed25519 public key (PEM) or folder of them. Default: `keys/trusted/` in the state folder."""
    model_poll_seconds: float = Field(default=2.0, gt=0, le=3600)
    """Seconds between checks for new releases."""
    models_max_bytes: int = Field(default=2**30, ge=0)
    """Maximum bytes of model files in memory; the least recently used are unloaded. 0: no cap."""
    allow_joblib: bool = False
    """Whether to unpickle models that cannot be exported to ONNX. Unpickling runs their code."""
    cache_dir: Path = Path()
    """Local folder for downloaded models. Default: `cache/` in the state folder."""
    cache_max_bytes: int = Field(default=4 * 2**30, ge=0)
    """Maximum bytes in it; the least recently used are deleted, but never a live version."""
    journal_dir: Path = Path()
    """Local folder for the usage journal. Default: `journal/` in the state folder."""
    journal_max_bytes: int = Field(default=2**30, ge=2**20)
    """Maximum bytes of usage waiting for billing; beyond that predictions get 503."""
    journal_sync: Literal["process", "disk"] = "process"
    """What a journalled event survives: a crash of the process, or of the machine (fsync)."""
    terms_max_age_seconds: float = Field(default=3600, gt=0, le=86_400)
    """Seconds that postpaid accounts keep their last terms while billing is unavailable."""
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024, le=2**30)
    """The largest body of a prediction request; larger ones get 413."""
    max_rows: int = Field(default=10_000, ge=1)
    """Maximum rows in a prediction request; more get 422."""
    max_in_flight: int = Field(default=1024, ge=1)
    """Maximum predictions in progress; requests beyond this or the account's share get 503."""
    max_wait_seconds: float = Field(default=2.0, gt=0)
    """How long a prediction may have to wait for the ones before it, at the pace of the last ones;
    while it would be longer, requests beyond the account's share get 503 at once."""
    max_body_bytes_in_flight: int = Field(
        default_factory=lambda data: _BODIES_IN_FLIGHT * data["max_body_bytes"], ge=0
    )
    """Maximum bytes of prediction requests in memory, complete or not; requests beyond this or the
    account's share get 503. Default: 32 times INFERENCE_MAX_BODY_BYTES."""
    predict_threads: int = Field(default_factory=_cpus, ge=1, le=1024)
    """Threads for slow predictions. Default: one per CPU available to the process."""
    drift_rows_per_second: int = Field(default=1_000, ge=0)
    """Maximum rows per version and second to compare with training; 0: none."""
    feedback_store: str = ""
    """fsspec URL of the store for true outcomes of predictions. Default: `feedback/` in the state
    folder."""
    feedback_rows: bool = False
    """Whether to store them with the input rows, which may be personal data."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level to log."""

    auth_port: int = Field(default=8001, validation_alias=AliasChoices("AUTH_PORT"))
    """Port of the local auth service, when INFERENCE_AUTH_URL is unset."""
    billing_port: int = Field(default=8003, validation_alias=AliasChoices("BILLING_PORT"))
    """Port of the local billing service, when INFERENCE_BILLING_URL is unset."""

    @model_validator(mode="before")
    @classmethod
    def _local_defaults(cls, given: dict[str, object]) -> dict[str, object]:
        """Fill in defaults from the state folder and the local ports."""
        home = Path(str(given.get("TOLLGATE_HOME", ".tollgate"))).absolute()
        client_id, client_secret = local_client(home)
        defaults: dict[str, object] = {
            "auth_url": f"http://127.0.0.1:{given.get('AUTH_PORT', 8001)}",
            "billing_url": f"http://127.0.0.1:{given.get('BILLING_PORT', 8003)}",
            "model_store": f"file://{home}/models",
            "feedback_store": f"file://{home}/feedback",
            "trusted_keys": home / "keys" / "trusted",
            "cache_dir": home / "cache",
            "journal_dir": home / "journal",
            "client_id": client_id,
            "client_secret": client_secret,
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
            raise ValueError("INFERENCE_CLIENT_ID and INFERENCE_CLIENT_SECRET are required")
        return self
