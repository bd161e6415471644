"""The sums of requests, rows and amounts as exact columns of a statement, and back."""

from typing import Any

from sqlalchemy import ColumnElement, func

from services.billing.amounts import Exact, exact, labelled
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageMonth, UsageVersion
from services.billing.usage.sums import Sums

Counted = type[UsageHour | UsageBreakdown | UsageVersion | UsageEvent]


def exact_sums(model: Counted) -> list[ColumnElement[Any]]:
    """Return the sums of a group's rows or events, by the names of `Sums`."""
    return [
        *_requests(model).named("requests"),
        *exact(model.rows).total().named("rows"),
        *exact(model.amount_low, high=model.amount_high).total().named("amount"),
    ]


def _requests(model: Counted) -> Exact:
    if issubclass(model, UsageEvent):
        return exact(func.count())
    return exact(model.requests).total()


def negated_event_sums() -> list[ColumnElement[Any]]:
    """Return the sums of a group's usage events, to be subtracted by adding them."""
    event = UsageEvent
    return [
        *exact(func.count()).minus().named("requests"),
        *exact(event.rows).total().minus().named("rows"),
        *exact(event.amount_low, high=event.amount_high).total().minus().named("amount"),
    ]


def stored_sums(
    model: type[UsageHour | UsageMonth | UsageBreakdown | UsageVersion],
) -> list[ColumnElement[Any]]:
    """Return the sums that a row stores, by the names of `Sums`."""
    return [
        *exact(model.requests).named("requests"),
        *exact(model.rows).named("rows"),
        *exact(model.amount_low, high=model.amount_high).named("amount"),
    ]


def sums_of(row: Any) -> Sums:
    """Return the sums of a row that was selected with columns of this module."""
    return Sums(*(labelled(row, name).value() for name in Sums._fields))
