"""The auth service's settings, read from the environment."""

import json
import re
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from services.auth.clients.redirects import find_problem
from services.auth.passwords import DEFAULT_THREADS
from services.auth.tokens.guesses import GuessLimits
from services.common.db.database import DatabaseUrl
from services.common.identity.tokens import MAX_LIFETIME_S
from services.common.settings import Hosts, Networks, Origins, Port, PublicUrls, ServiceUrl


def _local_database(data: dict[str, Any]) -> SecretStr:
    return SecretStr(f"sqlite+aiosqlite:///{data['home'].absolute() / 'auth.db'}")


def _local_issuer(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['port']}"


def _local_origins(data: dict[str, Any]) -> tuple[str, ...]:
    ports = (data["port"], data["inference_port"], data["billing_port"])
    return tuple(f"http://{host}:{port}" for port in ports for host in ("127.0.0.1", "localhost"))


def _local_sender(data: dict[str, Any]) -> str:
    host = urlsplit(data["issuer"]).hostname or ""
    return f"Tollgate <no-reply@{'localhost' if host.replace('.', '').isdigit() else host}>"


def _issuer_pages(data: dict[str, Any]) -> str:
    issuer: str = data["issuer"]
    return issuer


def _local_keys(data: dict[str, Any]) -> Path:
    folder: Path = data["home"] / "keys" / "auth"
    return folder


def _from_json(value: Any) -> Any:
    """Read a list in one variable; an error must not repeat it, because it may contain secrets."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError("must be a JSON list") from error


class FirstPartyClient(BaseModel):
    """A public client that is part of Tollgate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str = Field(pattern=r"^[a-z][a-z0-9-]{2,63}$")
    name: str = Field(default="", max_length=100)
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()

    @field_validator("redirect_uris", "post_logout_redirect_uris")
    @classmethod
    def _are_redirect_uris(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        for uri in uris:
            if problem := find_problem(uri):
                raise ValueError(problem)
        return uris


class ProviderSettings(BaseModel):
    """Another OpenID provider, with which people sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,38}[A-Za-z0-9])?$")
    issuer: str = Field(max_length=500)
    client_id: str = Field(min_length=1)
    client_secret: SecretStr

    @field_validator("issuer")
    @classmethod
    def _is_issuer(cls, issuer: str) -> str:
        """Compared exactly, so even a trailing slash stays."""
        if find_problem(issuer) or "?" in issuer:
            raise ValueError("must be an https URL without a query, or http on a loopback address")
        return issuer


def _have_own_names(providers: tuple[ProviderSettings, ...]) -> tuple[ProviderSettings, ...]:
    if len({each.name for each in providers}) < len(providers):
        raise ValueError("every provider needs a name of its own")
    return providers


class AuthSettings(PublicUrls):
    """The settings; `python -m services.auth` loads them once."""

    model_config = SettingsConfigDict(env_prefix="AUTH_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8001
    """Port to listen on."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of trusted proxies, separated by commas or spaces; their
    `X-Forwarded-For` and `X-Forwarded-Proto` are used."""
    trusted_hosts: Hosts = Field(default_factory=tuple)
    """Host names that requests may name, such as `auth.example.com` or `*.example.com`,
    separated by commas or spaces; other requests get 421. Unset: any."""
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
    """Who may register: anyone (`open`), those who are invited by e-mail (`invite`), or anyone who
    opens a link in an e-mail to the address (`verify`)."""
    mail_url: SecretStr = SecretStr("")
    """SMTP server: `smtp://[user:password@]host[:port]` or `smtps://…`, percent-encoded. Unset:
    each mail becomes a file in the folder `mail` of the state folder."""
    mail_from: str = Field(default_factory=_local_sender)
    """Sender of mail, such as `Tollgate <no-reply@example.com>`; default `no-reply` at the issuer's
    host."""
    pages_url: ServiceUrl = Field(default_factory=_issuer_pages)
    """Base URL of the pages that links in mail lead to; default the issuer."""
    cors_origins: Origins = Field(default_factory=_local_origins)
    """Origins of docs pages that may call `/token` from a browser, separated by commas or spaces;
    default the three local services."""
    signing_keys: Path = Field(default_factory=_local_keys)
    """Folder of your own RS256 private keys (`*.pem`), which auth stores in its database when it
    starts: the last new one by name follows the present key. Without any, auth creates keys itself.
    Default `keys/auth` in the state folder."""
    signing_key_days: int = Field(default=90, ge=0)
    """Age in days at which auth replaces the key that signs tokens; 0 for never."""
    passphrase: SecretStr = SecretStr("")
    """Encrypts signing keys and second factors in the database; unset: their encryption key is
    stored beside them."""
    previous_passphrase: SecretStr = SecretStr("")
    """The passphrase until now, while it is changed or removed."""
    access_token_seconds: int = Field(default=3600, ge=60, le=MAX_LIFETIME_S)
    """Lifetime of an access token."""
    refresh_token_seconds: int = Field(default=30 * 24 * 3600, ge=60)
    """Lifetime of a sign-in's refresh tokens; a refresh does not extend it."""
    session_seconds: int = Field(default=12 * 3600, ge=60)
    """How long a browser stays signed in to auth's own pages."""
    login_attempts: int = Field(default=10, ge=1)
    """Failed sign-ins allowed per e-mail address and IP address within the window; after that,
    sign-ins get 429. The limit is ten times as high for one e-mail address from all IP addresses it
    has not signed in from, and thirty times as high for one IP address and all e-mail addresses."""
    login_window_seconds: int = Field(default=300, ge=1)
    """Length of the window in which failed sign-ins are counted."""
    password_threads: int = Field(default=DEFAULT_THREADS, ge=1, le=1024)
    """Passwords hashed at once, using 19 MiB of memory each."""
    password_queue: int = Field(default=64, ge=0)
    """Passwords that may wait to be hashed; further requests get 503."""
    admin_email: str = ""
    """E-mail address of the administrator that `python -m services.auth migrate` creates or
    updates."""
    admin_password: SecretStr = SecretStr("")
    """That administrator's password; changing it changes the stored one."""
    inference_client_id: str = Field(default="", validation_alias="INFERENCE_CLIENT_ID")
    """OAuth client of the inference service, which `migrate` also creates or updates."""
    inference_client_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias="INFERENCE_CLIENT_SECRET"
    )
    """Its secret."""
    first_party_clients: Annotated[
        tuple[FirstPartyClient, ...], NoDecode, BeforeValidator(_from_json)
    ] = Field(default_factory=tuple)
    """Apps that are part of Tollgate, which people need not allow anything: a JSON list of
    `{"client_id", "name", "redirect_uris", "post_logout_redirect_uris"}`. `migrate` creates or
    updates them as public clients, and deletes those that are no longer listed."""
    providers: Annotated[
        tuple[ProviderSettings, ...],
        NoDecode,
        BeforeValidator(_from_json),
        AfterValidator(_have_own_names),
    ] = Field(default_factory=tuple)
    """OpenID providers of companies, with which people may sign in: a JSON list of `{"name",
    "issuer", "client_id", "client_secret"}`. Register `<AUTH_ISSUER>/sign-in/callback/<name>` there
    as the redirect URI."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level to log."""

    @property
    def passphrases(self) -> tuple[str, str]:
        """The passphrase and the previous one; each may be empty."""
        return self.passphrase.get_secret_value(), self.previous_passphrase.get_secret_value()

    @property
    def signing_key_age(self) -> timedelta | None:
        """Age at which a signing key is replaced; None for never."""
        return timedelta(days=self.signing_key_days) if self.signing_key_days else None

    @property
    def guess_limits(self) -> GuessLimits:
        """The limits on failed sign-ins."""
        return GuessLimits(self.login_attempts, self.login_window_seconds)

    @field_validator("mail_url")
    @classmethod
    def _is_mail_url(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            valid = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0
        except ValueError:  # the message may contain part of the password
            valid = False
        if url.get_secret_value() and not valid:
            raise ValueError("must be smtp://… or smtps://…, percent-encoded")
        return url

    @field_validator("mail_from")
    @classmethod
    def _is_sender(cls, sender: str) -> str:
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(sender)[1]) or not sender.isprintable():
            raise ValueError("must be an e-mail address, such as Tollgate <no-reply@example.com>")
        return sender
