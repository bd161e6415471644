"""Usage as FOCUS 1.2 describes charges (FinOps Open Cost and Usage Specification).

Each event is a charge of the hour in which it was made. Its price is that of one request with its
rows, so the quantity is one request and the unit price is the amount. A list price applies to
several models, so it is one SKU price for each model.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache

from services.billing.periods import next_period, start_of
from services.billing.usage.billed import BilledEvent
from services.billing.usage.sums import HOUR

FOCUS_COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "Tags",
    "x_ApiKeyId",
    "x_ClientId",
    "x_EventId",
    "x_ModelVersion",
)
"""The mandatory columns, those of the others that apply, and our own, which start with `x_`."""

NewRow = Callable[[BilledEvent, str], Sequence[object]]


def new_focus_row(
    *, account: str, period: str, currency: str, invoice: str | None, seller: str
) -> NewRow:
    """Return a function that returns the row of an event with an amount.

    Args:
        seller: the name of who sells, which is FOCUS's provider, publisher and issuer.
    """
    start, end = _moment(start_of(period)), _moment(start_of(next_period(period)))

    def new_row(event: BilledEvent, amount: str) -> Sequence[object]:
        since, until = _hour_of(event.time[: len("2026-10-31T14")])
        return (
            amount,
            account,
            None,
            currency,
            end,
            start,
            "Usage",
            None,
            f"Prediction by {event.model}",
            "Usage-Based",
            until,
            since,
            event.rows,
            "Rows",
            amount,
            amount,
            amount,
            invoice,
            seller,
            amount,
            amount,
            "Standard",
            1,
            "Requests",
            seller,
            seller,
            event.model,
            "AI and Machine Learning",
            "Predictions",
            "Machine Learning",
            event.model,
            "Predictions",
            f"{event.price_id}/{event.model}",
            event.tags,
            event.api_key,
            event.client_id,
            event.id,
            event.version,
        )

    return new_row


@lru_cache(maxsize=1024)
def _hour_of(begins: str) -> tuple[str, str]:
    """Return the start of an hour and of the next one; `begins` is the hour without minutes."""
    since = datetime.fromisoformat(f"{begins}:00:00+00:00")
    return _moment(since), _moment(since + HOUR)


def _moment(time: datetime) -> str:
    """Return a UTC datetime as FOCUS wants it: without fractions of a second."""
    return f"{time.isoformat(timespec='seconds')[:-6]}Z"
