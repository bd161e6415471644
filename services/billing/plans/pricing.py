"""What a request costs: pure arithmetic on integers of 10⁻⁹ of the currency unit."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.common.contracts import Amount

Charge = Annotated[Amount, Field(ge=0)]


class Tier(BaseModel):
    """What a request costs up to the `up_to_requests`-th of a UTC month; null means no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    up_to_requests: int | None = Field(strict=True, ge=1, le=2**63 - 1)
    per_request: Charge
    per_row: Charge


def unit_prices(*, tiers: Sequence[Tier], included_requests: int, number: int) -> tuple[int, int]:
    """Return what the `number`-th request (from 1) of a month costs, per request and per row.

    Included requests are the first of the month. They cost nothing and count in the tiers. Tiers
    are graduated: each request is charged by the tier of its own number.
    """
    if number <= included_requests:
        return 0, 0
    for tier in tiers:
        if tier.up_to_requests is None or number <= tier.up_to_requests:
            return tier.per_request, tier.per_row
    raise ValueError("the last tier must have no limit")


def charge(*, tiers: Sequence[Tier], included_requests: int, number: int, rows: int) -> int:
    """Return what the `number`-th request of a month costs with `rows` rows.

    The amount may exceed 64 bits.
    """
    per_request, per_row = unit_prices(
        tiers=tiers, included_requests=included_requests, number=number
    )
    return per_request + rows * per_row
