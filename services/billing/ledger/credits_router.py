"""`POST /accounts/{id}/credits` and `GET /balance`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path

from services.billing.callers import Account
from services.billing.idempotency import ONCE_ERRORS, AdminCall
from services.billing.ledger import credits as service
from services.billing.ledger.accounts import CurrencyFixed
from services.billing.ledger.credits import BalanceRead, CreditCreate, CreditRead
from services.billing.plans.default import DefaultPlanId
from services.common.contracts import AccountId
from services.common.db.database import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router

router = new_router(tag="credits")

_errors = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


@router.post(
    "/accounts/{account}/credits",
    status_code=201,
    responses=error_responses(*_errors, *ONCE_ERRORS, CurrencyFixed),
)
async def add_credit(
    account: Annotated[AccountId, Path()],
    body: CreditCreate,
    call: AdminCall,
) -> CreditRead:
    """Add prepaid money to an account; the response's `balance` includes it.

    Requires an `Idempotency-Key`. Calls with the same key count once, and a repeat gets the first
    call's response.
    """
    return await call.run(
        f"/accounts/{account}/credits",
        body=body,
        response=CreditRead,
        work=lambda session: service.add_credit(
            session, account=account, credit=body, by=call.author, now=call.now
        ),
    )


@router.get("/balance", responses=error_responses(*_errors))
async def read_balance(
    account: Account, session: Snapshot, default_plan: DefaultPlanId
) -> BalanceRead:
    """Return an account's prepaid balance, how much of it is held for running processes, the rest.

    Amounts are decimal strings. Postpaid charges do not change the balance.
    """
    return await service.read_balance(
        session, account=account, default_plan=default_plan, now=datetime.now(UTC)
    )
