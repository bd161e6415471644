"""The auth service's settings, read from the environment."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.auth.passwords import DEFAULT_THREADS
from services.common.db.database import DatabaseUrl
from services.common.identity.tokens import MAX_LIFETIME_S
from services.common.settings import Networks, Origins, Port, ServiceSettings, ServiceUrl


def _local_database(data: dict[str, Any]) -> SecretStr:
    return SecretStr(f"sqlite+aiosqlite:///{data['home'].absolute() / 'auth.db'}")


def _local_issuer(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['port']}"


def _local_origins(data: dict[str, Any]) -> tuple[str, ...]:
    ports = (data["port"], data["inference_port"], data["billing_port"])
    return tuple(f"http://{host}:{port}" for port in ports for host in ("127.0.0.1", "localhost"))


def _local_keys(data: dict[str, Any]) -> Path:
    folder: Path = data["home"] / "keys" / "auth"
    return folder


class AuthSettings(ServiceSettings):
    """The settings; `python -m services.auth` loads them once."""

    model_config = SettingsConfigDict(env_prefix="AUTH_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8001
    """Port to listen on."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of trusted proxies, separated by commas or spaces; their
    `X-Forwarded-For` and `X-Forwarded-Proto` are used."""
    inference_port: Port = Field(default=8002, validation_alias="INFERENCE_PORT")
    """Port of the local inference service, for the default of `AUTH_CORS_ORIGINS`."""
    billing_port: Port = Field(default=8003, validation_alias="BILLING_PORT")
    """Port of the local billing service, for the default of `AUTH_CORS_ORIGINS`."""
    database_url: DatabaseUrl = Field(default_factory=_local_database)
    """SQLAlchemy async URL: `mysql+aiomysql://…` or `sqlite+aiosqlite://…`; default `auth.db` in
    the state folder."""
    issuer: ServiceUrl = Field(default_factory=_local_issuer)
    """The `iss` of tokens and the base URL of the discovery document; default the local address."""
    registration: Literal["open", "invite", "verify"] = "open"
    """Who may register: anyone (`open`) or nobody (`invite`). `verify` (by e-mail) is rejected
    because this version cannot send mail."""
    cors_origins: Origins = Field(default_factory=_local_origins)
    """Origins of docs pages that may call `/token` from a browser, separated by commas or spaces;
    default the three local services."""
    signing_keys: Path = Field(default_factory=_local_keys)
    """Folder of RS256 private keys (`*.pem`): the last by name signs, all are published. If it is
    empty, a first key is created. Default `keys/auth` in the state folder."""
    access_token_seconds: int = Field(default=3600, ge=60, le=MAX_LIFETIME_S)
    """Lifetime of an access token."""
    refresh_token_seconds: int = Field(default=30 * 24 * 3600, ge=60)
    """Lifetime of a log-in's refresh tokens; a refresh does not extend it."""
    login_attempts: int = Field(default=10, ge=1)
    """Failed log-ins allowed per e-mail and address within the window; after that, log-ins get 429.
    The limit is ten times as high for one e-mail from all addresses it has not logged in from, and
    thirty times as high for one address and all e-mails."""
    login_window_seconds: int = Field(default=300, ge=1)
    """Length of the window in which failed log-ins are counted."""
    password_threads: int = Field(default=DEFAULT_THREADS, ge=1, le=1024)
    """Passwords hashed at once, using 19 MiB of memory each."""
    password_queue: int = Field(default=64, ge=0)
    """Passwords that may wait to be hashed; further requests get 503."""
    admin_email: str = ""
    """E-mail of the administrator that `python -m services.auth migrate` creates or updates."""
    admin_password: SecretStr = SecretStr("")
    """That administrator's password; changing it changes the stored one."""
    inference_client_id: str = Field(default="", validation_alias="INFERENCE_CLIENT_ID")
    """OAuth client of the inference service, which `migrate` also creates or updates."""
    inference_client_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias="INFERENCE_CLIENT_SECRET"
    )
    """Its secret."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level to log."""

    @field_validator("registration")
    @classmethod
    def _mail_is_not_sent(cls, mode: str) -> str:
        if mode == "verify":
            raise ValueError("e-mail verification is not available yet; use open or invite")
        return mode
