"""The base of every service's settings: shared variables, field types and error reporting."""

import json
import os
import re
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.common.validation import message_of


def _service_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # for example, a port that is not a number
        valid = False
    if not valid or re.search(r"[\s?#@]", url):
        raise ValueError("must be an http or https URL without query or fragment")
    return url.rstrip("/")


_ORIGIN = re.compile(r"https?://[^\s/?#@]+")


def _words(value: Any) -> Any:
    """Split a list in one variable at commas and spaces."""
    return tuple(re.split(r"[\s,]+", value.strip(" \t,"))) if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("every item must be an origin, such as https://docs.example.com")
    return origins


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for network in networks:
            ip_network(network)
    except ValueError as error:
        raise ValueError(
            "every item must be an IP address or network, such as 10.0.0.0/8"
        ) from error
    return networks


_HOST_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    lower = tuple(host.lower() for host in hosts)
    if not all(_HOST_NAME.fullmatch(host) for host in lower):
        raise ValueError("every item must be a host name without a port, such as *.example.com")
    return lower


LogFormat = Literal["json", "text"]

Port = Annotated[int, Field(ge=1, le=65535)]

ServiceUrl = Annotated[str, AfterValidator(_service_url)]
"""The URL of a service, without a trailing slash: issuers are compared exactly."""


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_origins)]
"""Origins of web pages (scheme, host and port), separated by commas or spaces."""

Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_networks)]
"""IP addresses and networks, separated by commas or spaces."""


Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_hosts)]
"""Host names without ports, separated by commas or spaces; `*.` stands for any subdomain."""


class ServiceSettings(BaseSettings):
    """Base class of a service's settings."""

    model_config = SettingsConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        env_ignore_empty=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(default=Path(".tollgate"), validation_alias="TOLLGATE_HOME")
    """State folder, which contains the default paths of a one-machine installation."""
    otlp_endpoint: ServiceUrl | None = Field(
        default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    """Base URL of the OTLP/HTTP collector that the services send traces to; unset: no traces."""

    log_format: LogFormat = Field(default="json", validation_alias="TOLLGATE_LOG_FORMAT")
    """`json`, or `text` for reading at a terminal; `make up` uses `text` if its output is one."""

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            SystemExit: a value is invalid; one line on stderr names the variable.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            message = message_of(first)
            exit_with_error(
                f"{cls._variable(first['loc'])}: {message}" if first["loc"] else message
            )

    @classmethod
    def _variable(cls, loc: tuple[int | str, ...]) -> str:
        """Return the environment variable that a validation error refers to."""
        field = str(loc[0])
        return field if field.isupper() else f"{cls.model_config['env_prefix']}{field}".upper()


class PublicUrls(ServiceSettings):
    """Base class of the settings of a service, all of which publish where to find the others."""

    inference_public_url: ServiceUrl | None = Field(
        default=None, validation_alias="INFERENCE_PUBLIC_URL"
    )
    """URL at which callers reach inference; unset: unknown."""
    billing_public_url: ServiceUrl | None = Field(
        default=None, validation_alias="BILLING_PUBLIC_URL"
    )
    """URL at which callers reach billing; unset: unknown."""
    console_public_url: ServiceUrl | None = Field(
        default=None, validation_alias="CONSOLE_PUBLIC_URL"
    )
    """URL at which people reach the console; unset: unknown."""


def local_client(home: Path) -> tuple[str, str]:
    """Return the id and secret of the OAuth client with which local services call one another.

    Both are empty if the state folder has none.
    """
    try:
        client = json.loads((home / "credentials.json").read_text())["services"]["inference"]
        return str(client["client_id"]), str(client["client_secret"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def exit_with_error(line: str) -> NoReturn:
    """Exit with one line on stderr and exit code 2 (usage or configuration error)."""
    sys.stderr.write(f"error: {line}\n")
    raise SystemExit(2)


def prepare_folder(folder: Path, *, variable: str) -> None:
    """Create a folder that a service writes to.

    Raises:
        SystemExit: it cannot be created or is not writable; one line names the variable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        exit_with_error(f"{variable}: {folder}: {error.strerror}")
    if not os.access(folder, os.W_OK):
        exit_with_error(f"{variable}: {folder} is not writable")
