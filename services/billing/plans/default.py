"""The default plan: from the settings, for accounts without their own."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.exc import DBAPIError

from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import Unavailable


class DefaultPlan:
    """Stores the default plan at startup and, if that fails, at each readiness check.

    The database may be unavailable or not migrated while the service starts. Until the plan is
    stored, the service is not ready and requests that need the plan get 503.
    """

    def __init__(self, database: Database, plan: PlanCreate | None) -> None:
        self._database = database
        self._plan = plan
        self._stored = plan is None
        self.id = plan_ids(plan)[0] if plan is not None else None

    async def check(self) -> str | None:
        """Return why the plan is not ready, or None once it is stored."""
        plan = self._plan
        if plan is None or self._stored:
            return None
        now = datetime.now(UTC)
        try:
            await in_transaction(
                self._database, lambda session: store_plan(session, plan=plan, now=now)
            )
        except (Unavailable, DBAPIError):
            return "The default plan is not stored yet."
        self._stored = True
        return None


async def _default_plan(request: Request) -> str | None:
    default: DefaultPlan = request.app.state.default_plan
    return default.id


DefaultPlanId = Annotated[str | None, Depends(_default_plan)]
