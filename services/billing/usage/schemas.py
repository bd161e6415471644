"""Usage and receipts as they are shown; amounts are decimal strings of the account's currency."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from services.billing.models import Receipt
from services.common.contracts import format_amount


class Total(BaseModel):
    requests: int
    rows: int
    amount: str
    currency: str | None = Field(description="Null while nothing was charged and no plan holds.")


class TimeBucket(BaseModel):
    """Use within `[from, to)`; those without any are left out."""

    model_config = ConfigDict(validate_by_name=True)

    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    requests: int
    rows: int
    amount: str


class ModelBucket(BaseModel):
    """Use of one model."""

    model: str
    requests: int
    rows: int
    amount: str


class UsageRead(BaseModel):
    """What an account used within `[from, to)`."""

    model_config = ConfigDict(validate_by_name=True)

    account: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    total: Total
    buckets: list[TimeBucket] | list[ModelBucket]


class ReceiptRead(BaseModel):
    """One answered request and what it cost."""

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
    invoice: str | None = Field(description="The invoice it is on, once its month is invoiced.")


class ReceiptPage(BaseModel):
    events: list[ReceiptRead]
    next_cursor: str | None = Field(description="Null on the last page.")


def read_receipt(receipt: Receipt, *, currency: str) -> ReceiptRead:
    return ReceiptRead(
        id=receipt.id,
        source=receipt.source,
        time=receipt.time,
        model=receipt.model,
        version=receipt.version,
        rows=receipt.rows,
        client_id=receipt.client_id,
        amount=format_amount(receipt.amount),
        currency=currency,
        price_id=receipt.price_id,
        invoice=None,
    )
