"""What a model costs new accounts: the default plan, as billing publishes it to everyone."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import httpx
import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

REFRESH_S = 60.0
RETRY_S = 5.0
MAX_AGE_S = 600.0
"""Older prices are not shown: they may have changed since billing last answered."""
WAIT_S = 2.0
"""How long a page waits for billing."""

log = structlog.get_logger()


class Tier(BaseModel):
    """Amounts are decimal strings; the last tier has no upper bound."""

    up_to_requests: int | None
    per_request: str
    per_row: str


class PlanPrice(BaseModel):
    model: str | None
    included_requests: int = 0
    tiers: list[Tier]


class PublicPlan(BaseModel):
    """The part of a plan that a price list shows."""

    name: str
    currency: str
    billing: Literal["postpaid", "prepaid"]
    prices: list[PlanPrice]
    default: bool = False


class ExplanationPrice(BaseModel):
    """What explained predictions cost."""

    included_requests: int
    tiers: list[Tier]


class PriceRead(BaseModel):
    """What a model costs on the default plan, in its currency and per UTC month.

    It is `not_offered` if there is no default plan or it has no price for the model, and
    `unavailable` while billing does not answer. Without an `explanation`, explained predictions
    cost the same as others.
    """

    status: Literal["available", "not_offered", "unavailable"]
    plan: str | None = None
    currency: str | None = None
    billing: Literal["postpaid", "prepaid"] | None = None
    included_requests: int | None = None
    tiers: list[Tier] | None = None
    explanation: ExplanationPrice | None = None


class _Plans(BaseModel):
    plans: list[PublicPlan]


_ANSWER = TypeAdapter(_Plans)


def find_price(plans: Sequence[PublicPlan] | None, model: str) -> PriceRead:
    """Return a model's own price on the default plan, or else that of all other models.

    Args:
        plans: the public plans; None if they are unknown.
    """
    if plans is None:
        return PriceRead(status="unavailable")
    for plan in plans:
        prices = {price.model: price for price in plan.prices}
        price = prices.get(model) or prices.get(None)
        explanation = prices.get(f"{model}:explain")
        if plan.default and price is not None:
            return PriceRead(
                status="available",
                plan=plan.name,
                currency=plan.currency,
                billing=plan.billing,
                included_requests=price.included_requests,
                tiers=price.tiers,
                explanation=explanation
                and ExplanationPrice(
                    included_requests=explanation.included_requests, tiers=explanation.tiers
                ),
            )
    return PriceRead(status="not_offered")


class PriceList:
    """Keeps the public plans, and reads them again when a card needs them and they are old.

    Args:
        http: owned by the lifespan, which closes it.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        billing_url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = f"{billing_url}/plans"
        self._clock = clock
        self._plans: list[PublicPlan] | None = None
        self._read_at = self._next_read = clock()
        self._reading: asyncio.Task[None] | None = None

    async def plans(self) -> Sequence[PublicPlan] | None:
        """Return the public plans, or None if billing has not answered for some time."""
        if self._clock() >= self._next_read:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), WAIT_S)
        return self._plans if self._clock() < self._read_at + MAX_AGE_S else None

    async def close(self) -> None:
        """Cancel a read that is in progress."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        """Read the plans once; a failure keeps those read before."""
        try:
            response = await asyncio.shield(self._http.get(self._url))
            response.raise_for_status()
            self._plans = _ANSWER.validate_json(response.content).plans
        except (httpx.HTTPError, ValidationError) as error:
            self._next_read = self._clock() + RETRY_S
            log.warning("plans_read_failed", error=type(error).__name__)
        else:
            self._read_at = self._clock()
            self._next_read = self._read_at + REFRESH_S
