"""What a model costs the visitor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.console.apis import billing as billing_api
from services.console.apis.billing import Document, applicable_plan, price_of
from services.console.apis.calls import Api
from services.console.sessions.visitors import Session


@dataclass(frozen=True, slots=True)
class Tariff:
    """The plan that applies to a visitor."""

    plan: Document | None

    def price(self, model: str) -> Mapping[str, Any] | None:
        """Return what a model costs; None if it is not offered on this plan."""
        return price_of(self.plan, model) if self.plan else None

    @property
    def currency(self) -> str | None:
        """The currency of the plan."""
        return self.plan["currency"] if self.plan else None


async def find_tariff(billing: Api, session: Session | None) -> Tariff:
    """Return the plan of the visitor's account or, without a session, the default plan."""
    token = session.token if session is not None else None
    return Tariff(applicable_plan(await billing_api.list_plans(billing, token=token)))
