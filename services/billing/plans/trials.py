"""Trial credit: granted once per account, taken back after some days as far as it is left.

It is spent before other credit: what is left is the credit less all that was charged since, except
what returned to the balance.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.ledger.accounts import find_money, lock_money
from services.billing.ledger.credits import CreditCreate, add_credit
from services.billing.models import Plan
from services.billing.plans import repository
from services.billing.plans.models import Trial
from services.billing.plans.schemas import TrialCredit
from services.billing.usage.service import sum_prepaid
from services.common.db.database import Database
from services.common.db.retrying import in_transaction

TRIAL = "tollgate-trial"
"""Who enters trial credit, in the list of credits."""
APPLY_EVERY_S = 5.0
"""How often trials are granted and taken back."""
_RETRY_AFTER = timedelta(minutes=1)
"""When to look again whether processes have given reserved credit back."""
_AT_ONCE = 100

log = structlog.get_logger()


async def plan_trial(
    session: AsyncSession, *, account: str, plan: Plan, starts_at: datetime, now: datetime
) -> None:
    """Give an account the trial credit of a plan that it is on from a moment on, if it had none.

    Raises:
        CurrencyFixed: the account has been charged or credited in another currency.
    """
    if plan.trial_credit is None or await repository.lock_trial(session, account=account):
        return
    terms = TrialCredit.model_validate_json(plan.trial_credit)
    trial = await repository.add_trial(
        session,
        account=account,
        plan_id=plan.id,
        currency=plan.currency,
        amount=terms.amount,
        days=terms.days,
        starts_at=starts_at,
    )
    if starts_at <= now:
        await _grant(session, trial, now=now)


async def end_trial(session: AsyncSession, *, account: str, now: datetime) -> None:
    """Take back what is left of the trial credit of a locked account."""
    trial = await repository.lock_trial(session, account=account)
    if trial is not None and trial.granted and trial.due_at is not None:
        await _take_back(session, trial, now=now)


async def apply_forever(database: Database, *, every_s: float = APPLY_EVERY_S) -> None:
    """Grant and take back what is due until cancelled; after a failure, try again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await apply(database, now=datetime.now(UTC))
        except Exception as error:  # the next round tries again
            log.warning("trials_failed", error=type(error).__name__)


async def apply(database: Database, *, now: datetime) -> None:
    """Grant and take back what is due, some accounts at a time, except where that fails."""
    after = ""
    while True:
        async with database.snapshot() as session:
            due = await repository.list_due_trials(session, now=now, after=after, limit=_AT_ONCE)
        if not due:
            return
        for account in due:
            try:
                await in_transaction(
                    database,
                    lambda session, account=account: _apply(  # type: ignore[misc]
                        session, account=account, now=now
                    ),
                )
            except Exception as error:  # one account must not block the others
                log.error("trial_failed", account=account, error=type(error).__name__)
        after = due[-1]


async def _apply(session: AsyncSession, *, account: str, now: datetime) -> None:
    await lock_money(session, accounts=[account], journals=())
    trial = await repository.lock_trial(session, account=account)
    if trial is None or trial.due_at is None or trial.due_at > now:
        return
    if trial.granted:
        await _take_back(session, trial, now=now)
        return
    given = await repository.find_in_force(session, accounts=[account], at=now)
    plan_id, currency = given.get(account, (None, None))
    if plan_id != trial.plan_id or currency not in (None, trial.currency):
        await repository.delete_trial(session, trial)  # another plan came instead
        return
    await _grant(session, trial, now=now)


async def _grant(session: AsyncSession, trial: Trial, *, now: datetime) -> None:
    await _credit(session, trial, amount=trial.amount, reason="Trial credit.", now=now)
    repository.mark_granted(trial, at=now, until=now + timedelta(days=trial.days))


async def _take_back(session: AsyncSession, trial: Trial, *, now: datetime) -> None:
    """Take back what is left, as far as no process has reserved it; the account is locked."""
    available, held = await find_money(session, account=trial.account)
    spent = await sum_prepaid(session, account=trial.account, since=trial.starts_at)
    spent -= await repository.sum_returned(session, account=trial.account, plan_id=trial.plan_id)
    left = max(0, trial.amount - trial.expired - max(0, spent))
    taken = min(left, max(0, available))
    if taken:
        reason = "Trial credit has expired."
        await _credit(session, trial, amount=-taken, reason=reason, now=now)
    is_over = taken == left or not held
    repository.mark_expired(trial, amount=taken, due_at=None if is_over else now + _RETRY_AFTER)


async def _credit(
    session: AsyncSession, trial: Trial, *, amount: int, reason: str, now: datetime
) -> None:
    credit = CreditCreate.model_construct(amount=amount, currency=trial.currency, reason=reason)
    await add_credit(session, account=trial.account, credit=credit, by=TRIAL, now=now)
