"""Types of columns that only plans have."""

from typing import Any

from sqlalchemy import JSON, Dialect, TypeDecorator

from services.billing.plans.pricing import Tier


class TierList(TypeDecorator[tuple[Tier, ...]]):
    """A price's tiers, as JSON like in the API."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[Tier, ...] | None, dialect: Dialect) -> Any:
        return [tier.model_dump(mode="json") for tier in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Tier, ...]:
        return tuple(Tier.model_validate(tier) for tier in value)
