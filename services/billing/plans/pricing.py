"""What a request costs: pure arithmetic on integers of 10⁻⁹ of the currency unit."""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

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


class _Part(NamedTuple):
    """Some of a month's first requests, which have the same prices."""

    requests: int
    per_request: int
    per_row: int


def charge_together(
    *, tiers: Sequence[Tier], included_requests: int, requests: int, rows: int
) -> int | None:
    """Return what the first `requests` requests of a month cost, with `rows` rows in all.

    None if that depends on which of them have how many rows.
    """
    parts = list(_parts(tiers=tiers, included_requests=included_requests, requests=requests))
    if len({part.per_row for part in parts}) > 1:
        return None
    for_requests = sum(part.requests * part.per_request for part in parts)
    return for_requests + (rows * parts[0].per_row if parts else 0)


def _parts(*, tiers: Sequence[Tier], included_requests: int, requests: int) -> Iterator[_Part]:
    """Yield the parts of the first `requests` requests, in order."""
    done = min(included_requests, requests)
    if done:
        yield _Part(done, 0, 0)
    for tier in tiers:
        end = requests if tier.up_to_requests is None else min(tier.up_to_requests, requests)
        if end > done:
            yield _Part(end - done, tier.per_request, tier.per_row)
            done = end
