"""The billing service's settings: the only reader of its environment."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from services.billing.plans.schemas import PlanCreate
from services.common.settings import ServiceSettings

_DRIVERS = {"sqlite+aiosqlite", "mysql+aiomysql"}
_ISSUER = re.compile(r"https?://[^\s?#@]+")

Port = Annotated[int, Field(ge=1, le=65535)]


def _local_database(data: dict[str, Any]) -> SecretStr:
    return SecretStr(f"sqlite+aiosqlite:///{data['home'].absolute() / 'billing.db'}")


def _local_issuer(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['auth_port']}"


def _plan(value: Any) -> PlanCreate | None:
    """A plan from its JSON, or from the path of a file of it."""
    if value is None or isinstance(value, PlanCreate):
        return value
    text = str(value).strip()
    try:
        plan = orjson.loads(text if text.startswith("{") else Path(text).read_bytes())
        return PlanCreate.model_validate(plan)
    except orjson.JSONDecodeError as error:
        raise ValueError("is not JSON, nor a file of it") from error
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the plan"
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


class BillingSettings(ServiceSettings):
    """Read once, by `python -m services.billing`."""

    model_config = SettingsConfigDict(env_prefix="BILLING_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8003
    """Port to listen on."""
    auth_port: Port = Field(default=8001, validation_alias="AUTH_PORT")
    """Port of the local auth service, for the default of `BILLING_AUTH_URL`."""
    auth_url: str = Field(default_factory=_local_issuer)
    """The issuer of the tokens to accept; default the local auth service."""
    database_url: SecretStr = Field(default_factory=_local_database)
    """SQLAlchemy async URL: `mysql+aiomysql://…` or `sqlite+aiosqlite://…`; default `billing.db`
    in the state folder."""
    default_plan: Annotated[PlanCreate | None, NoDecode, BeforeValidator(_plan)] = None
    """The plan of accounts without one of their own: the JSON of `POST /plans`, or the path of a
    file of it. Unset: such accounts cannot use models."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log line to write."""

    @field_validator("auth_url")
    @classmethod
    def _issuer_is_a_url(cls, issuer: str) -> str:
        if not _ISSUER.fullmatch(issuer):
            raise ValueError("must be an http or https URL without query or fragment")
        return issuer

    @field_validator("database_url")
    @classmethod
    def _known_driver(cls, url: SecretStr) -> SecretStr:
        try:
            driver = make_url(url.get_secret_value()).drivername
        except ArgumentError:
            driver = ""
        if driver not in _DRIVERS:
            raise ValueError("must begin with mysql+aiomysql:// or sqlite+aiosqlite://")
        return url
