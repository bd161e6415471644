"""Usage in buckets: by time, by model, or by the values of a dimension. Pure functions."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeVar, cast

from services.billing.usage.parts import Part, PartGroup
from services.billing.usage.schemas import Bucket, TimeBucket
from services.billing.usage.sums import HOUR, NO_USAGE, Sums, day_of, hour_of, month_of
from services.common.contracts import TAG_PATTERN, format_amount
from services.common.validation import matching

TimeUnit = Literal["hour", "day", "month"]
K = TypeVar("K", bound=Hashable)

GroupBy = Annotated[
    str,
    matching(
        f"^(hour|day|month|model|version|api_key|tag:{TAG_PATTERN})$",
        "Must be hour, day, month, model, version, api_key or tag:<name>.",
    ),
]

_KEY_CHARS: dict[TimeUnit, int] = {"month": len("2026-10"), "day": len("2026-10-31")}


def time_unit(group_by: str) -> TimeUnit | None:
    """Return the unit that usage is grouped by; None if it is not grouped by time."""
    return cast(TimeUnit, group_by) if group_by in ("hour", "day", "month") else None


def part_group(unit: TimeUnit | None) -> PartGroup:
    """Return what separates the parts that are grouped by a unit of time or, if None, by model."""
    if unit is None:
        return "model"
    return "hour" if unit == "hour" else "day"


def total_of(parts: Sequence[Part]) -> Sums:
    """Return the sums of all parts."""
    return _add_up(parts, lambda part: None).get(None, NO_USAGE)


def by_model(parts: Sequence[Part]) -> list[Bucket]:
    """Return a bucket for each model."""
    return by_value(_add_up(parts, lambda part: part.model))


def by_value(sums: Mapping[str, Sums], *, rest: Sums = NO_USAGE) -> list[Bucket]:
    """Return a bucket for each value, and one with the key null for the rest, if there is any."""
    buckets = [_bucket(key, each) for key, each in sorted(sums.items()) if each.requests]
    return [*buckets, _bucket(None, rest)] if rest.requests else buckets


def by_time(
    parts: Sequence[Part], unit: TimeUnit, *, since: datetime, until: datetime
) -> list[TimeBucket]:
    """Return a bucket for each hour, day or month, clipped to the window."""
    start_of = {"hour": hour_of, "day": day_of, "month": month_of}[unit]
    length = {"hour": HOUR, "day": timedelta(days=1), "month": timedelta(days=31)}[unit]
    return [
        TimeBucket(
            **_bucket(_time_key(start, unit), sums).model_dump(),
            since=max(start, since),
            until=min(start_of(start + length), until),
        )
        for start, sums in sorted(_add_up(parts, lambda part: start_of(part.time)).items())
    ]


def _time_key(start: datetime, unit: TimeUnit) -> str:
    """Return `2026-10`, `2026-10-31`, or an hour's start in RFC 3339."""
    return f"{start:%Y-%m-%dT%H:%M:%SZ}"[: _KEY_CHARS.get(unit)]


def _add_up(parts: Sequence[Part], key: Callable[[Part], K]) -> dict[K, Sums]:
    sums: dict[K, Sums] = {}
    for part in parts:
        before = sums.get(key(part), NO_USAGE)
        sums[key(part)] = before.plus(part.requests, part.rows, part.amount)
    return {each: counted for each, counted in sums.items() if counted.requests}


def _bucket(key: str | None, sums: Sums) -> Bucket:
    amount = format_amount(sums.amount)
    return Bucket(key=key, requests=sums.requests, rows=sums.rows, amount=amount)
