"""The console's settings, read from the environment."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import Hosts, Networks, Port, ServiceSettings, ServiceUrl

MIN_SECRET_CHARS = 32


def _local_url(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['port']}"


def _local_auth(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['auth_port']}"


def _local_inference(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['inference_port']}"


def _local_billing(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['billing_port']}"


class ConsoleSettings(ServiceSettings):
    """The settings; `python -m services.console` loads them once."""

    model_config = SettingsConfigDict(env_prefix="CONSOLE_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8000
    """Port to listen on."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of trusted proxies, separated by commas or spaces; their
    `X-Forwarded-For` and `X-Forwarded-Proto` are used."""
    trusted_hosts: Hosts = Field(default_factory=tuple)
    """Host names that requests may name, such as `example.com` or `*.example.com`, separated by
    commas or spaces; other requests get 421. Unset: any."""
    auth_port: Port = Field(default=8001, validation_alias="AUTH_PORT")
    """Port of the local auth service, for the default of `CONSOLE_AUTH_URL`."""
    inference_port: Port = Field(default=8002, validation_alias="INFERENCE_PORT")
    """Port of the local inference service, for the default of `CONSOLE_INFERENCE_URL`."""
    billing_port: Port = Field(default=8003, validation_alias="BILLING_PORT")
    """Port of the local billing service, for the default of `CONSOLE_BILLING_URL`."""
    url: ServiceUrl = Field(default_factory=_local_url, validation_alias="CONSOLE_PUBLIC_URL")
    """The console's own address in a browser; default the local address. Register
    `<CONSOLE_PUBLIC_URL>/sign-in/callback` as the redirect URI of its client, and
    `<CONSOLE_PUBLIC_URL>/` for after signing out (`AUTH_FIRST_PARTY_CLIENTS`)."""
    auth_url: ServiceUrl = Field(default_factory=_local_auth)
    """The issuer of tokens, on whose pages people sign in; default the local auth service."""
    auth_address: ServiceUrl = Field(default_factory=lambda data: data["auth_url"])
    """URL under which the console reaches auth, if not the issuer's."""
    inference_url: ServiceUrl = Field(default_factory=_local_inference)
    """URL of inference, as the examples show it; default the local inference service."""
    inference_address: ServiceUrl = Field(default_factory=lambda data: data["inference_url"])
    """URL under which the console reaches inference, if not the public one."""
    billing_url: ServiceUrl = Field(default_factory=_local_billing)
    """URL of billing, as the examples show it; default the local billing service."""
    billing_address: ServiceUrl = Field(default_factory=lambda data: data["billing_url"])
    """URL under which the console reaches billing, if not the public one."""
    client_id: str = Field(default="console", pattern=r"^[a-z][a-z0-9-]{2,63}$")
    """The console's public OAuth client, as `AUTH_FIRST_PARTY_CLIENTS` lists it."""
    secret: SecretStr = Field(default=SecretStr(""))
    """Encrypts the cookies: at least 32 characters, the same for all replicas. Unset: a random one,
    which is stored in `keys/console` in the state folder."""
    docs: Path | None = None
    """Folder of the docs site, which `/docs` serves. Unset: `build/docs` beside the sources, if
    `make docs` has built it."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level to log."""

    @property
    def docs_folder(self) -> Path | None:
        """The folder of the docs site, or None if nobody has built it."""
        folder = self.docs or Path(__file__).parents[2] / "build/docs"
        return folder if (folder / "index.html").is_file() else None

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the console over HTTPS."""
        return self.url.startswith("https:")
