"""`POST /accounts/{id}/credits` and `GET /balance`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path

from services.billing.accounts import CurrencyFixed
from services.billing.callers import Account
from services.billing.credits import service
from services.billing.credits.service import BalanceRead, CreditCreate, CreditRead
from services.billing.database import Store
from services.billing.idempotency import (
    CallKey,
    IdempotencyKey,
    KeyMissing,
    KeyReused,
    StillRunning,
    once,
)
from services.billing.plans.default import DefaultPlanId
from services.common.contracts import AccountId
from services.common.db import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import Caller, RequireScope

router = new_router(tag="credits")

_refusals = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


@router.post(
    "/accounts/{account}/credits",
    status_code=201,
    responses=error_responses(*_refusals, KeyMissing, CurrencyFixed, StillRunning, KeyReused),
)
async def add_credit(
    account: Annotated[AccountId, Path()],
    body: CreditCreate,
    key: IdempotencyKey,
    caller: Annotated[Caller, Depends(RequireScope("admin"))],
    database: Store,
) -> CreditRead:
    """Add prepaid money to an account; the answer's `balance` is what it then has.

    Send an `Idempotency-Key`: however often the call is sent under it, it counts once, and a
    repeat is answered as the first was.
    """
    now = datetime.now(UTC)
    return await once(
        database,
        call=CallKey(caller.account, key, f"/accounts/{account}/credits"),
        body=body,
        answer=CreditRead,
        work=lambda session: service.add_credit(
            session, account=account, credit=body, by=caller.account, now=now
        ),
        now=now,
    )


@router.get("/balance", responses=error_responses(*_refusals))
async def read_balance(
    account: Account, session: Snapshot, default_plan: DefaultPlanId
) -> BalanceRead:
    """An account's prepaid money: what it has, how much of it running processes hold, the rest.

    Amounts are decimal strings. Postpaid charges never touch it.
    """
    return await service.read_balance(
        session, account=account, default_plan=default_plan, now=datetime.now(UTC)
    )
