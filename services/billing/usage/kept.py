"""The stored sums of usage that are compared with the usage events."""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, literal, true

from services.billing.archives.models import is_not_archived
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageVersion
from services.billing.usage.sums import dimension_of_tag
from services.billing.usage.windows import Window

Stored = type[UsageHour] | type[UsageVersion] | type[UsageBreakdown]

IS_KEY = UsageBreakdown.dimension == literal("api_key")
IS_TAG = UsageBreakdown.dimension.like(dimension_of_tag("%"))


class Kept(NamedTuple):
    """Stored sums that are compared by their primary key.

    Args:
        by: the columns that they are kept by besides account and hour, and those of events.
        where: which rows of the table these are.
    """

    table: Stored
    by: dict[str, Any]
    where: ColumnElement[bool]
    has_value: ColumnElement[bool] = true()


PRICED = {"model": UsageEvent.model, "price_id": UsageEvent.price_id}
HOURS = Kept(UsageHour, PRICED, true())
VERSIONS = Kept(UsageVersion, PRICED | {"version": UsageEvent.version}, true())
API_KEYS = Kept(
    UsageBreakdown, {"value": UsageEvent.api_key}, IS_KEY, UsageEvent.api_key.is_not(None)
)
TAGS = Kept(UsageBreakdown, {}, IS_TAG, UsageEvent.tags.is_not(None))
"""Of each account and hour; their values are compared one by one."""


def events_of(window: Window, kept: Kept) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions on the events that some stored sums of a window count."""
    return window.contains(UsageEvent.time), is_not_archived(), kept.has_value
