"""What crosses a wire between services: scopes, money, usage events, leases, sources.

Both ends import these shapes, so neither can drift from the other.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from services.common.times import Instant

AUDIENCE = "tollgate"
EVENT_TYPE = "tollgate.prediction.v1"
EVENT_SOURCE = "/inference"
CLOUDEVENTS_BATCH = "application/cloudevents-batch+json"
CLOUDEVENTS_ONE = "application/cloudevents+json"
MAX_EVENTS_PER_BATCH = 10_000
MAX_ASKS_PER_CALL = 1_000


class TokenGrant(BaseModel):
    """What the token endpoint answers (RFC 6749 §5.1)."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")
    refresh_token: str | None = None
    scope: str


# -- money ---------------------------------------------------------------------------------------

NANO = 10**9
"""Amounts are integers of 10⁻⁹ of the currency unit inside, decimal strings outside."""

MAX_AMOUNT = 10**12 * NANO
"""The largest single amount, a unit price or a credit: 10¹² units of any currency."""

MAX_SUM = 2**124
"""The largest sum of amounts, in 10⁻⁹ of the unit: about 2 × 10²⁸ units."""

_DECIMAL = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,9})?")


def parse_amount(text: str, *, limit: int = MAX_SUM) -> int:
    """Return a decimal string as 10⁻⁹ of the unit: `"0.0005"` → `500_000`.

    Raises:
        ValueError: not a plain decimal with at most nine decimals, or beyond `limit`.
    """
    if text == "0":  # as most that are sent
        return 0
    if not _DECIMAL.fullmatch(text):
        raise ValueError("an amount is a decimal string with at most 9 decimals, such as '0.0005'")
    whole, _, decimals = text.removeprefix("-").partition(".")
    nano = int(whole) * NANO + int(decimals.ljust(9, "0"))
    if nano > limit:
        raise ValueError(f"an amount is at most {format_amount(limit)}")
    return -nano if text[0] == "-" else nano


def format_amount(nano: int) -> str:
    """The shortest decimal string for 10⁻⁹ of the unit: `500_000` → `"0.0005"`."""
    sign, (whole, fraction) = "-" if nano < 0 else "", divmod(abs(nano), NANO)
    decimals = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def _sum(value: Any) -> int:
    return _parse(value, limit=MAX_SUM)


def _amount(value: Any) -> int:
    return _parse(value, limit=MAX_AMOUNT)


def _parse(value: Any, *, limit: int) -> int:
    if not isinstance(value, str):
        raise ValueError("an amount is a decimal string, such as '0.0005'")
    return parse_amount(value, limit=limit)


_AS_TEXT = PlainSerializer(format_amount, return_type=str, when_used="json")
_IS_TEXT = Field(json_schema_extra={"type": "string"})

Sum = Annotated[int, BeforeValidator(_sum), _AS_TEXT, _IS_TEXT]
"""A sum of amounts: a decimal string on the wire, 10⁻⁹ of the unit in memory."""

Amount = Annotated[int, BeforeValidator(_amount), _AS_TEXT, _IS_TEXT]
"""A single amount, such as a price or a credit: like `Sum`, but at most `MAX_AMOUNT`."""

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217, such as USD.")]
AccountId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        description="The account's UUID, lower case: a user token's `sub`.",
    ),
]
JournalId = AccountId
Name = Annotated[str, Field(strict=True, min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
"""A model, version or other identifier: printable ASCII, which every database compares alike."""

# -- usage events --------------------------------------------------------------------------------


Rows = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]


class Usage(BaseModel):
    """The `data` of a usage event: what was answered, and under which price."""

    model_config = ConfigDict(extra="ignore")

    model: Name
    version: Name
    rows: Rows
    client_id: Name | None = None
    latency_ms: float | None = Field(default=None, ge=0)
    price_id: Name | None = None


_NUMBER = re.compile(r"[0-9]{1,20}")


def _sequence(value: Any) -> int:
    """Sent as a string, zero-padded to 20 so that it sorts; plain integers are accepted."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("a sequence is a whole number, from 1")


class Position(BaseModel):
    """Where an event stands in the journal of the process run that wrote it."""

    model_config = ConfigDict(extra="ignore")

    journal: JournalId | None = None
    sequence: Annotated[int, BeforeValidator(_sequence), Field(ge=1, le=2**63 - 1)] | None = None


class UsageEvent(Position):
    """A CloudEvents 1.0 event for one answered prediction; `(source, id)` is its identity."""

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
    """What became of a batch: counts, and each event that was turned away."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: list[RejectedEvent]


# -- leases --------------------------------------------------------------------------------------


MIN_PER_SECOND = 1e-6
"""The lowest rate limit: one request in about 12 days."""
MAX_PER_SECOND = MAX_BURST = 1e6


class RateShare(BaseModel):
    """One process's share of a rate limit, however small."""

    per_second: float = Field(gt=0, le=MAX_PER_SECOND)
    burst: float = Field(ge=1, le=MAX_BURST)


class RateLimit(RateShare):
    """A rate limit as a plan states it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    per_second: float = Field(ge=MIN_PER_SECOND, le=MAX_PER_SECOND)


class LeaseAsk(BaseModel):
    """What a process asks for one account; `spent` is cumulative, as are the answer's grants."""

    model_config = ConfigDict(extra="forbid")

    account: AccountId
    journal: JournalId
    ask_no: int = Field(strict=True, ge=1, le=2**63 - 1)
    spent: Annotated[Sum, Field(ge=0)] = 0
    at_least: Annotated[Sum, Field(ge=0)] = 0
    want: Annotated[Sum, Field(ge=0)] = 0
    release: bool = False
    demand: float = Field(default=0.0, ge=0, le=1e9)


class PriceTerms(BaseModel):
    """What one model costs now; `model` is null for every model without a price of its own."""

    model: str | None
    price_id: str
    per_request: str
    per_row: str


LeaseStatus = Literal["ok", "no_credit", "no_plan", "held_elsewhere"]


@dataclass(slots=True)
class LeaseTerms:
    """What a process may do for one account until it asks again.

    No model of pydantic's own, as a thousand are made for one call.
    """

    account: str
    status: LeaseStatus
    currency: str | None
    billing: Literal["postpaid", "prepaid"] | None
    granted: str
    prices: list[PriceTerms]
    rate_limit: RateShare | None
    retry_after: Annotated[int | None, Field(exclude_if=lambda wait_s: wait_s is None)] = None
    """With `held_elsewhere`: in how many seconds enough of the credit is expected back."""


# -- sources -------------------------------------------------------------------------------------


class SourceReport(BaseModel):
    """How far a journal has come: its last durable sequence, and whether it has ended."""

    model_config = ConfigDict(extra="forbid")

    last: int = Field(strict=True, ge=0, le=2**63 - 1)
    closed: bool = Field(strict=True)
