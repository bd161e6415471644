"""Date-times on the wire, strictly in RFC 3339 format."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from services.common.times import EARLIEST, EXPECTED, LATEST, OUT_OF_RANGE, Instant, parse_instant


class Body(BaseModel):
    moment: Instant


NOT_RFC_3339 = [
    1_700_000_000,
    1_700_000_000.5,
    "1700000000",
    True,
    None,
    "",
    [],
    "now",
    "2026-01-31",
    "2026-01-31T12:00:00",
    "2026-01-31 12:00:00Z",
    "2026-01-31T12:00Z",
    "2026-01-31T12:00:00+0530",
    "2026-01-31T12:00:00+05",
    "2026-01-31T12:00:00+24:00",
    "2026-01-31T12:00:00 02:00",  # an offset whose plus sign was lost in a query string
    "2026-01-31T12:00:00Z\n",
    " 2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00,5Z",
    "20260131T120000Z",
    "2026-W05-6T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:60:00Z",
    "2026-01-31T12:00:60Z",
    "0000-01-01T00:00:00Z",
    "+2026-01-31T12:00:00Z",
    "２０２６-01-31T12:00:00Z",
    "2026-01-31T12:00:00−05:00",
]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+05:30", datetime(2026, 1, 31, 6, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.1234569Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T05:29:60.9+05:30", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", EARLIEST),
        ("9998-12-31T23:59:59.999999999Z", LATEST),
    ],
)
def test_every_rfc_3339_date_time_is_accepted(text: str, moment: datetime) -> None:
    read = Body.model_validate({"moment": text}).moment

    assert read == moment
    assert read.tzinfo is UTC


@pytest.mark.parametrize("value", NOT_RFC_3339, ids=repr)
def test_anything_else_is_rejected_with_an_example(value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Body.model_validate({"moment": value})

    assert refused.value.errors()[0]["msg"] == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "9999-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_dates_that_the_databases_cannot_store_are_rejected(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Body.model_validate({"moment": text})

    assert refused.value.errors()[0]["msg"] == OUT_OF_RANGE


@given(
    st.datetimes(
        min_value=(EARLIEST + timedelta(days=1)).replace(tzinfo=None),
        max_value=(LATEST - timedelta(days=1)).replace(tzinfo=None),
        timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
    )
)
def test_any_moment_survives_the_wire(moment: datetime) -> None:
    assert parse_instant(moment.isoformat()) == moment


def test_the_schema_names_the_format() -> None:
    schema = Body.model_json_schema()["properties"]["moment"]

    assert (schema["type"], schema["format"]) == ("string", "date-time")


@pytest.mark.parametrize("digits", range(10))
@pytest.mark.parametrize("offset", ["Z", "+00:00"])
def test_the_usual_form_is_read_like_every_other(digits: int, offset: str) -> None:
    fraction = f".{'123456789'[:digits]}" if digits else ""
    usual, other = (f"2026-02-28{t}23:59:59{fraction}{offset}" for t in "Tt")

    instant = parse_instant(usual)

    assert instant == parse_instant(other)
    assert instant.tzinfo is UTC
    assert instant.microsecond == int("123456"[:digits].ljust(6, "0"))
