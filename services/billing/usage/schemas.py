"""Usage and receipts in responses; amounts are decimal strings in the account's currency."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from services.billing.models import UsageEvent
from services.common.contracts import format_amount


class Total(BaseModel):
    requests: int
    rows: int
    amount: str
    currency: str | None = Field(
        description="Null until something is charged, if there is no plan."
    )


class Bucket(BaseModel):
    """The usage under one key; empty buckets are left out."""

    key: str | None = Field(
        description="The hour, day, month, model, version, API key's id, or tag's value. Null for "
        "usage without an API key or the tag, or from before such sums were kept."
    )
    requests: int
    rows: int
    amount: str


class TimeBucket(Bucket):
    """Usage within `[from, to)`."""

    model_config = ConfigDict(validate_by_name=True)

    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")


class UsageRead(BaseModel):
    """What an account used within `[from, to)`."""

    model_config = ConfigDict(validate_by_name=True)

    account: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    total: Total
    buckets: list[TimeBucket] | list[Bucket]


class ReceiptRead(BaseModel):
    """One billed request and what it cost."""

    id: str
    source: str
    time: datetime
    model: str
    version: str
    rows: int
    client_id: str | None
    amount: str
    currency: str
    price_id: str
    invoice: str | None = Field(
        description="The number of its invoice, once its month is invoiced."
    )


class ReceiptPage(BaseModel):
    events: list[ReceiptRead]
    next_cursor: str | None = Field(description="Null on the last page.")


def read_receipt(event: UsageEvent, *, currency: str, invoice: str | None) -> ReceiptRead:
    """Return the receipt of a usage event.

    Args:
        invoice: the number of its invoice, if its month is invoiced.
    """
    return ReceiptRead(
        id=event.id,
        source=event.source,
        time=event.time,
        model=event.model,
        version=event.version,
        rows=event.rows,
        client_id=event.client_id,
        amount=format_amount(event.amount),
        currency=currency,
        price_id=event.price_id,
        invoice=invoice,
    )


def receipt_claims(event: UsageEvent, *, currency: str) -> dict[str, str | int | None]:
    """Return what a signed receipt states."""
    receipt = read_receipt(event, currency=currency, invoice=None).model_dump(mode="json")
    names = ("id", "time", "model", "version", "rows", "amount", "currency")
    return {
        "account": event.account,
        "input_sha256": event.input_sha256,
        **{name: receipt[name] for name in names},
    }
