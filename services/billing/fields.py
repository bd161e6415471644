"""Fields of requests that several slices have."""

from typing import Annotated

from pydantic import Field

from services.billing.models import REASON_CHARS
from services.common.validation import matching

_YEAR = "(?:19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"
PERIOD_PATTERN = f"^{_YEAR}-(?:0[1-9]|1[0-2])$"
"""Months from 1970 to 9998: the next one, where a month ends, must be a date, too."""

PeriodId = Annotated[
    str,
    matching(
        PERIOD_PATTERN,
        "Must be a month from 1970-01 to 9998-12, such as 2026-10.",
        strict=True,
        description="A UTC month, such as 2026-10.",
    ),
]
Reason = Annotated[str, Field(strict=True, min_length=1, max_length=REASON_CHARS)]
