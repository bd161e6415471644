"""The shapes that services exchange: money, usage events, leases, sources.

Both ends import them, so neither can drift from the other.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)
from pydantic.fields import FieldInfo

from services.common.times import Instant
from services.common.validation import matching

COMMAND_CLIENT = "tollgate-cli"
"""The public client as which the `tollgate` command signs people in."""
AUDIENCE = "tollgate"
EVENT_TYPE = "tollgate.prediction.v1"
EVENT_SOURCE = "/inference"
CLOUDEVENTS_BATCH = "application/cloudevents-batch+json"
CLOUDEVENTS_ONE = "application/cloudevents+json"
MAX_EVENTS_PER_BATCH = 10_000
MAX_LEASES_PER_CALL = 1_000
MAX_REJECTIONS = 50
"""The most rejected credentials in one report."""
MAX_OMITTED = 10**9
MAX_ADDRESS_CHARS = 64


class TokenGrant(BaseModel):
    """A response of the token endpoint (RFC 6749 §5.1)."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")
    refresh_token: str | None = None
    scope: str


class KeyIntrospection(BaseModel):
    """The introspection response (RFC 7662 §2.2) for an active API key."""

    active: Literal[True]
    token_type: Literal["api_key"]
    sub: str = Field(min_length=1, description="The account that pays.")
    client_id: str = Field(min_length=1, description="The key's id.")
    scope: str
    iat: int
    exp: int | None = None
    mode: Literal["live", "test"]
    models: list[str] | None = None
    allowed_ips: list[str] | None = None


RevocationKind = Literal["jti", "account", "user", "client", "api_key"]


class RevocationRead(BaseModel):
    """Credentials that are no longer valid, by what they belong to."""

    kind: RevocationKind
    id: str
    account: str | None = Field(
        default=None,
        exclude_if=lambda account: account is None,
        description="With `user`: only the user's tokens for this account.",
    )
    issued_before: Instant = Field(description="Tokens issued from then on are valid.")
    until: Instant = Field(description="All of these tokens have expired by then.")


class RevocationPage(BaseModel):
    """Revocations in the order of their numbers."""

    last: int = Field(description="Continue with this number.")
    revocations: list[RevocationRead]


class Rejection(BaseModel):
    """Credentials that a service has rejected."""

    time: Instant
    address: str = Field(max_length=MAX_ADDRESS_CHARS, description="IP address of the request.")


class RejectionReport(BaseModel):
    """What a process has rejected since its last report."""

    rejections: list[Rejection] = Field(max_length=MAX_REJECTIONS)
    omitted: int = Field(ge=0, le=MAX_OMITTED, description="How many more there were.")


# -- money ---------------------------------------------------------------------------------------

NANO = 10**9
"""Amounts are integers of 10⁻⁹ of the currency unit internally, decimal strings in the API."""

MAX_AMOUNT = 10**12 * NANO
"""The largest single amount, such as a unit price or a credit: 10¹² currency units."""

MAX_SUM = 2**124
"""The largest sum of amounts: about 2 × 10²⁸ currency units."""

_DECIMAL = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,9})?")


def parse_amount(text: str, *, limit: int = MAX_SUM) -> int:
    """Parse a decimal string into 10⁻⁹ of the unit: `"0.0005"` → `500_000`.

    Raises:
        ValueError: the text is not a plain decimal with at most nine decimals, or exceeds `limit`.
    """
    if text == "0":  # the most frequent value
        return 0
    if not _DECIMAL.fullmatch(text):
        raise ValueError("must be a decimal string with at most 9 decimals, such as '0.0005'")
    whole, _, decimals = text.removeprefix("-").partition(".")
    nano = int(whole) * NANO + int(decimals.ljust(9, "0"))
    if nano > limit:
        raise ValueError(f"must be at most {format_amount(limit)}")
    return -nano if text[0] == "-" else nano


def format_amount(nano: int) -> str:
    """Format 10⁻⁹ of the unit as the shortest decimal string: `500_000` → `"0.0005"`."""
    sign, (whole, fraction) = "-" if nano < 0 else "", divmod(abs(nano), NANO)
    decimals = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def _sum(value: Any) -> int:
    return _parse(value, limit=MAX_SUM)


def _amount(value: Any) -> int:
    return _parse(value, limit=MAX_AMOUNT)


def _parse(value: Any, *, limit: int) -> int:
    if not isinstance(value, str):
        raise ValueError("must be a decimal string, such as '0.0005'")
    return parse_amount(value, limit=limit)


_AS_TEXT = PlainSerializer(format_amount, return_type=str, when_used="json")
_IS_TEXT = Field(json_schema_extra={"type": "string"})

Sum = Annotated[int, BeforeValidator(_sum), _AS_TEXT, _IS_TEXT]
"""A sum of amounts: a decimal string in JSON, 10⁻⁹ of the unit in memory."""

Amount = Annotated[int, BeforeValidator(_amount), _AS_TEXT, _IS_TEXT]
"""A single amount, such as a price or a credit: like `Sum`, but at most `MAX_AMOUNT`."""

Currency = Annotated[
    str,
    matching(
        r"^[A-Z]{3}$",
        "Must be three capital letters, such as USD.",
        description="ISO 4217, such as USD.",
    ),
]
UUID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
NOT_A_UUID = "Must be a UUID in lower case."
AccountId = Annotated[
    str,
    matching(
        UUID_PATTERN,
        NOT_A_UUID,
        description="The account's UUID, lower case: a user token's `sub`.",
    ),
]
JournalId = AccountId
Name = Annotated[str, Field(strict=True, min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
"""A model, version or other identifier: printable ASCII, which all databases compare alike."""

# -- usage events --------------------------------------------------------------------------------


Rows = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]


MAX_TAGS = 5
TAG_PATTERN = "[A-Za-z0-9._-]{1,64}"
"""A tag's name or value."""
TagText = Annotated[str, Field(strict=True, pattern=f"^{TAG_PATTERN}$")]


class Usage(BaseModel):
    """The `data` of a usage event: what was predicted, and under which price."""

    model_config = ConfigDict(extra="ignore")

    model: Name
    version: Name
    rows: Rows
    client_id: Name | None = None
    latency_ms: float | None = Field(default=None, ge=0)
    price_id: Name | None = None
    api_key: Name | None = None
    input_sha256: Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")] | None = None
    """Of the request's body, as it was received."""
    tags: Annotated[dict[TagText, TagText], Field(max_length=MAX_TAGS)] | None = None


_NUMBER = re.compile(r"[0-9]{1,20}")


def _sequence(value: Any) -> int:
    """Parse a sequence: a string, zero-padded to 20 digits so that it sorts, or a plain integer."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be an integer, at least 1")


class Position(BaseModel):
    """An event's position in the journal of the process run that wrote it."""

    model_config = ConfigDict(extra="ignore")

    journal: JournalId | None = None
    sequence: Annotated[int, BeforeValidator(_sequence), Field(ge=1, le=2**63 - 1)] | None = None


class UsageCloudEvent(Position):
    """A usage event as CloudEvents 1.0 sends it: one prediction, identified by `(source, id)`."""

    specversion: Literal["1.0"]
    type: Literal["tollgate.prediction.v1"]
    source: str = Field(strict=True, min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")
    id: str = Field(strict=True, min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")
    subject: AccountId
    time: Instant
    data: Usage


class RejectedEvent(BaseModel):
    index: int
    id: str | None
    reason: str


class IngestResult(BaseModel):
    """The outcome of a batch: counts, and each rejected event."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: list[RejectedEvent]


# -- leases --------------------------------------------------------------------------------------


MIN_PER_SECOND = 1e-6
"""The lowest rate limit: one request in about 12 days."""
MAX_PER_SECOND = MAX_BURST = 1e6


class RateShare(BaseModel):
    """One process's share of a rate limit; it may be tiny."""

    per_second: float = Field(gt=0, le=MAX_PER_SECOND)
    burst: float = Field(ge=1, le=MAX_BURST)


class RateLimit(RateShare):
    """A plan's rate limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    per_second: float = Field(ge=MIN_PER_SECOND, le=MAX_PER_SECOND)


def _renamed(name: str, former: str) -> FieldInfo:
    """Accept a field under its former name, too, which the previous version still sends."""
    field: FieldInfo = Field(validation_alias=AliasChoices(name, former))
    return field


class LeaseRequest(BaseModel):
    """What one process requests for one account.

    `spent` is cumulative per account and journal, like `granted` in the response. `sequence`
    numbers the lease requests of a journal, not its usage events.
    """

    model_config = ConfigDict(extra="forbid")

    account: AccountId
    journal: JournalId
    sequence: Annotated[int, Field(strict=True, ge=1, le=2**63 - 1), _renamed("sequence", "ask_no")]
    spent: Annotated[Sum, Field(ge=0)] = 0
    minimum: Annotated[Sum, Field(ge=0), _renamed("minimum", "at_least")] = 0
    desired: Annotated[Sum, Field(ge=0), _renamed("desired", "want")] = 0
    release: bool = False
    demand: float = Field(default=0.0, ge=0, le=1e9)


class PriceTerms(BaseModel):
    """What one model costs now; `model` is null for all models without their own price."""

    model: str | None
    price_id: str
    per_request: str
    per_row: str


LeaseStatus = Literal["ok", "no_credit", "no_plan", "reserved_elsewhere"]


@dataclass(slots=True)
class LeaseTerms:
    """What a process may do for one account until its next lease request.

    A dataclass rather than a pydantic model, because one call creates a thousand.
    """

    account: str
    status: LeaseStatus
    currency: str | None
    billing: Literal["postpaid", "prepaid"] | None
    granted: str
    prices: list[PriceTerms]
    rate_limit: RateShare | None
    retry_after: Annotated[int | None, Field(exclude_if=lambda wait_s: wait_s is None)] = None
    """With `reserved_elsewhere`: the seconds until enough credit is expected back."""


# -- sources -------------------------------------------------------------------------------------


class SourceReport(BaseModel):
    """A journal's progress: its last durable sequence, and whether it is closed."""

    model_config = ConfigDict(extra="forbid")

    last: int = Field(strict=True, ge=0, le=2**63 - 1)
    closed: bool = Field(strict=True)
