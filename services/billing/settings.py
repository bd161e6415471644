"""The billing service's settings: the only reader of its environment."""

from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from services.billing.archives.store import NO_ARCHIVE
from services.billing.invoices.parties import NO_SELLER, Party, TaxRule
from services.billing.plans.schemas import PlanCreate
from services.common.db.database import DatabaseUrl
from services.common.settings import (
    Hosts,
    Networks,
    Origins,
    Port,
    PublicUrls,
    ServiceUrl,
    local_client,
)
from services.common.validation import message_of


def _local_database(data: dict[str, Any]) -> SecretStr:
    return SecretStr(f"sqlite+aiosqlite:///{data['home'].absolute() / 'billing.db'}")


def _local_client_id(data: dict[str, Any]) -> str:
    return local_client(data["home"])[0]


def _local_client_secret(data: dict[str, Any]) -> SecretStr:
    return SecretStr(local_client(data["home"])[1])


def _local_issuer(data: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{data['auth_port']}"


def _local_receipt_keys(data: dict[str, Any]) -> Path:
    folder: Path = data["home"] / "keys" / "receipts"
    return folder


def _local_archive(data: dict[str, Any]) -> str:
    return str(data["home"].absolute() / "archive")


def _needs_an_archive(months: int | None, info: ValidationInfo) -> int | None:
    if months is not None and info.data.get("archive") == NO_ARCHIVE:
        raise ValueError("needs BILLING_ARCHIVE")
    return months


def _plan(value: Any) -> PlanCreate | None:
    """Parse a plan from its JSON or from the path of a JSON file."""
    if value is None or isinstance(value, PlanCreate):
        return value
    text = str(value).strip()
    try:
        content = orjson.loads(text if text.startswith("{") else Path(text).read_bytes())
        plan = PlanCreate.model_validate(content)
    except orjson.JSONDecodeError as error:
        raise ValueError("is neither JSON nor a JSON file") from error
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the plan"
        raise ValueError(f"{where}: {message_of(first)}") from error
    if plan.monthly_fee or plan.trial_credit:  # billing does not learn when an account begins
        raise ValueError("the default plan must have no monthly_fee and no trial_credit")
    return plan


def _seller(value: Any) -> Any:
    return _json(value) or NO_SELLER


def _tax_rules(value: Any) -> Any:
    return _json(value) or ()


def _need_a_country(rules: tuple[TaxRule, ...], info: ValidationInfo) -> tuple[TaxRule, ...]:
    seller: Party = info.data.get("seller", NO_SELLER)
    if seller.country is None and any(rule.reverse_charge for rule in rules):
        raise ValueError("reverse_charge needs the country of BILLING_SELLER")
    return rules


def _json(value: Any) -> Any:
    """Parse a setting's JSON; empty text counts as unset."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError("is not JSON") from error


class BillingSettings(PublicUrls):
    """Read once, by `python -m services.billing`."""

    model_config = SettingsConfigDict(env_prefix="BILLING_")

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8003
    """Port to listen on."""
    trusted_proxies: Networks = Field(default_factory=tuple)
    """Addresses and networks of the proxies in front, separated by commas or spaces: their
    `X-Forwarded-For` and `X-Forwarded-Proto` are trusted."""
    trusted_hosts: Hosts = Field(default_factory=tuple)
    """Host names that requests may name, such as `billing.example.com` or `*.example.com`,
    separated by commas or spaces; other requests get 421. Unset: any."""
    cors_origins: Origins = Field(default_factory=tuple)
    """Origins of web pages that may call this service, separated by commas or spaces."""
    auth_port: Port = Field(default=8001, validation_alias="AUTH_PORT")
    """Port of the local auth service, for the default of `BILLING_AUTH_URL`."""
    auth_url: ServiceUrl = Field(default_factory=_local_issuer)
    """The issuer of the tokens to accept; by default the local auth service."""
    auth_address: ServiceUrl = Field(default_factory=lambda data: data["auth_url"])
    """URL under which this service reaches auth, if not the issuer's."""
    client_id: str = Field(default_factory=_local_client_id)
    """This service's own OAuth client, with which it asks auth about API keys. Default: from
    `credentials.json`. Without one, API keys are rejected."""
    client_secret: SecretStr = Field(default_factory=_local_client_secret)
    """Its secret. Default: from `credentials.json`."""
    database_url: DatabaseUrl = Field(default_factory=_local_database)
    """SQLAlchemy async URL: `mysql+aiomysql://…` or `sqlite+aiosqlite://…`; default `billing.db`
    in the state folder."""
    receipt_keys: Path = Field(default_factory=_local_receipt_keys)
    """Folder of ES256 keys (`*.pem`): the last private one by name signs receipts, all are
    published. If it is empty, a first key is created. Default `keys/receipts` in the state
    folder."""
    default_plan: Annotated[PlanCreate | None, NoDecode, BeforeValidator(_plan)] = None
    """The plan of accounts without their own: the JSON of `POST /plans`, or the path of a file with
    it, without a monthly fee or trial credit. If unset, such accounts cannot use models."""
    seller: Annotated[Party, NoDecode, BeforeValidator(_seller)] = Field(
        default_factory=lambda: NO_SELLER
    )
    """Who sells, on invoices: JSON `{"name", "address", "country", "vat_id", "registration_number",
    "email"}`, where only the name is required; the registration number is the company's (EN 16931
    BT-30). A seller's invoice numbers have no gaps; another name or VAT id begins a new series."""
    tax_rules: Annotated[
        tuple[TaxRule, ...],
        NoDecode,
        BeforeValidator(_tax_rules),
        AfterValidator(_need_a_country),
    ] = Field(default_factory=tuple)
    """Taxes by the buyer's country: JSON `[{"country", "rate", "reverse_charge"}]`. A rate is a
    fraction or a percentage (`0.19` and `19` are the same). Without a rule there is no tax."""
    archive: str = Field(default_factory=_local_archive)
    """Where the usage events of archived months are: an fsspec URL, such as `gs://bucket/path`, a
    folder that all replicas share, or `none`. Default `archive` in the state folder."""
    retention_months: Annotated[
        Annotated[int, Field(ge=1, le=1200)] | None, AfterValidator(_needs_an_archive)
    ] = None
    """For how many months after its end the usage events of an invoiced month stay in the database;
    then they are archived. Unset: they stay until `tollgate billing archive` archives them."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum level of log lines."""
