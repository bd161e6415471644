"""Plans in requests and responses."""

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from services.billing.currencies import KnownCurrency
from services.billing.models import DESCRIPTION_CHARS, PLAN_NAME_CHARS
from services.billing.plans.pricing import Charge, Tier
from services.common.contracts import AccountId, Amount, Name, RateLimit
from services.common.times import Instant

_EXAMPLE: JsonDict = {
    "name": "Pay as you go",
    "currency": "USD",
    "billing": "postpaid",
    "prices": [
        {
            "model": None,
            "included_requests": 1000,
            "tiers": [
                {"up_to_requests": 100000, "per_request": "0.0005", "per_row": "0.0001"},
                {"up_to_requests": None, "per_request": "0.0004", "per_row": "0.0001"},
            ],
        }
    ],
    "rate_limit": {"per_second": 50, "burst": 100},
    "monthly_fee": "10",
    "description": "For small teams.",
}


class PriceCreate(BaseModel):
    """What one model costs or, if `model` is null, all models without their own price."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None
    included_requests: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] = 0
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _tiers_ascend_and_the_last_is_open(self) -> Self:
        *bounds, last = [tier.up_to_requests for tier in self.tiers]
        closed = [bound for bound in bounds if bound is not None]
        if last is not None or len(closed) < len(bounds):
            raise ValueError("up_to_requests must be null in the last tier and only there")
        if any(low >= high for low, high in pairwise(closed)):
            raise ValueError("up_to_requests must rise from tier to tier")
        return self


class TrialCredit(BaseModel):
    """Credit that an account gets once, and what is left of it expires after some days."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Annotated[Amount, Field(gt=0)]
    days: Annotated[int, Field(strict=True, ge=1, le=366)]


class _PlanTerms(BaseModel):
    name: Annotated[str, Field(strict=True, min_length=1, max_length=PLAN_NAME_CHARS)]
    currency: KnownCurrency
    billing: Literal["postpaid", "prepaid"]
    rate_limit: RateLimit | None = None
    public: bool = Field(
        default=False,
        strict=True,
        description="Whether it is listed for everyone; the default plan always is.",
    )
    description: str = Field(
        default="", strict=True, max_length=DESCRIPTION_CHARS, description="For those who choose."
    )
    monthly_fee: Charge = Field(
        default=0,
        description="Invoiced for each UTC month, pro rata by day; postpaid plans only.",
    )
    trial_credit: TrialCredit | None = Field(
        default=None, description="Granted once per account; prepaid plans only."
    )


class PlanCreate(_PlanTerms):
    """A plan; storing the same plan twice yields one plan."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    prices: Annotated[list[PriceCreate], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _one_price_per_model(self) -> Self:
        if len({price.model for price in self.prices}) < len(self.prices):
            raise ValueError("a model must not have more than one price")
        return self

    @model_validator(mode="after")
    def _prepaid_prices_are_flat(self) -> Self:
        # A credit reservation can only be spent if each request's price is known in advance.
        if self.billing == "prepaid" and any(
            len(price.tiers) > 1 or price.included_requests for price in self.prices
        ):
            raise ValueError("a prepaid plan must have one tier per price and no included requests")
        return self

    @model_validator(mode="after")
    def _fees_are_invoiced_and_trials_are_credit(self) -> Self:
        # An invoice may be issued when the balance is spent or reserved.
        if self.billing == "prepaid" and self.monthly_fee:
            raise ValueError("a prepaid plan must have no monthly_fee; fees are invoiced")
        if self.billing == "postpaid" and self.trial_credit:
            raise ValueError("a postpaid plan must have no trial_credit; it uses no balance")
        return self


class PriceRead(PriceCreate):
    id: str


class PlanRead(_PlanTerms):
    id: str
    prices: list[PriceRead]


class PlanListed(PlanRead):
    default: bool = Field(description="Whether accounts without a plan of their own are on it.")
    current: bool = Field(description="Whether the token's account is on it; false without one.")


class PlanList(BaseModel):
    plans: list[PlanListed]


class PlanAssign(BaseModel):
    """The plan to put an account on; without `effective_from`, from now on."""

    model_config = ConfigDict(extra="forbid")

    plan: Name
    effective_from: Instant | None = None


class PlanAssigned(BaseModel):
    account: AccountId
    plan: str
    effective_from: datetime
