"""Previews of plans: a past month's events and fees, priced again under another plan."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.models import ArchivePart
from services.billing.archives.reading import (
    AS_ACCEPTED,
    NO_ARCHIVES,
    Archives,
    Wanted,
    list_files,
)
from services.billing.database import long_snapshot
from services.billing.fields import PeriodId
from services.billing.ledger.accounts import find_currencies
from services.billing.plans import repository
from services.billing.plans.fees import find_fees, stream_fee_accounts
from services.billing.plans.pricing import charge
from services.billing.plans.schemas import PlanCreate, PriceCreate
from services.billing.plans.service import PlanNotFound, read_plan
from services.common.contracts import AccountId, Name, format_amount
from services.common.db.database import Database
from services.common.errors import BodyInvalid

_AT_ONCE = 500
"""Accounts whose currency is looked up together."""


class PlanPreviewCreate(BaseModel):
    """A plan, by its id or as a whole, and the month to replay under it."""

    model_config = ConfigDict(extra="forbid")

    plan: Name | PlanCreate
    account: AccountId | None = None
    period: PeriodId


class BeforeAfter(BaseModel):
    before: str
    after: str


class AccountPreview(BeforeAfter):
    account: str


class PlanPreviewRead(BaseModel):
    """What was paid, and what would have been paid under the plan."""

    period: str
    accounts: list[AccountPreview] = Field(
        description="Those with usage or a fee in the plan's currency; "
        "those that pay least more first."
    )
    total: BeforeAfter


class _Replay:
    """Prices the requests of one account after another."""

    def __init__(self, prices: Mapping[str | None, PriceCreate]) -> None:
        self._prices = prices
        self._numbers: Counter[str | None] = Counter()

    def next_account(self) -> None:
        """Begin to count requests from 1."""
        self._numbers.clear()

    def charge(self, model: str, rows: int) -> int:
        """Return what the next request costs; 0 for a model that the plan does not sell."""
        key = model if model in self._prices else None
        price = self._prices.get(key)
        if price is None:
            return 0
        self._numbers[key] += 1
        return charge(
            tiers=price.tiers,
            included_requests=price.included_requests,
            number=self._numbers[key],
            rows=rows,
        )


async def preview(
    database: Database, archives: Archives = NO_ARCHIVES, *, wanted: PlanPreviewCreate
) -> PlanPreviewRead:
    """Replay a month's events under a plan, in the order in which they were accepted.

    They are streamed, so that memory grows with the accounts, not with the events. Each account
    pays the plan's whole monthly fee, instead of what it owes as fees for the month.

    Raises:
        PlanNotFound: there is no plan with this id.
        BodyInvalid: the account's currency is not the plan's.
    """
    async with database.snapshot() as session:
        plan = await _find_plan(session, wanted.plan)
    replay = _Replay({price.model: price for price in plan.prices})
    sums: dict[str, tuple[int, int]] = {}
    async with long_snapshot(database) as connection:
        parts = await list_files(connection, period=wanted.period, account=wanted.account)
        events = (
            _stream_archived(archives, parts, account=wanted.account)
            if parts
            else repository.stream_month(connection, period=wanted.period, account=wanted.account)
        )
        async for account, model, rows, amount in events:
            if account not in sums:
                replay.next_account()
            before, after = sums.get(account, (0, 0))
            sums[account] = before + amount, after + replay.charge(model, rows)
    currencies = await _currencies(database, sorted(sums))
    async for account, currency, fees in _fees(database, wanted):
        before, after = sums.get(account, (0, 0))
        sums[account] = before + fees, after
        currencies.setdefault(account, currency)
    if wanted.account in sums and currencies[wanted.account] != plan.currency:
        raise BodyInvalid([{"loc": ["body", "plan"], "msg": "Must be in the account's currency."}])
    same = {
        account: (before, after + plan.monthly_fee)
        for account, (before, after) in sums.items()
        if currencies[account] == plan.currency
    }
    return _read(wanted.period, same)


async def _stream_archived(
    archives: Archives, parts: Sequence[ArchivePart], *, account: str | None
) -> AsyncIterator[tuple[str, str, int, int]]:
    """Yield account, model, rows and amount of archived events, by account, as accepted."""
    wanted = Wanted(account=account)
    async for page in archives.stream(parts, wanted, order_by=AS_ACCEPTED):
        for event in page:
            yield event.account, event.model, event.rows, event.amount


def _read(period: str, sums: Mapping[str, tuple[int, int]]) -> PlanPreviewRead:
    ordered = sorted(sums.items(), key=lambda each: (each[1][1] - each[1][0], each[0]))
    return PlanPreviewRead(
        period=period,
        accounts=[
            AccountPreview(
                account=account, before=format_amount(before), after=format_amount(after)
            )
            for account, (before, after) in ordered
        ],
        total=BeforeAfter(
            before=format_amount(sum(before for before, _ in sums.values())),
            after=format_amount(sum(after for _, after in sums.values())),
        ),
    )


async def _find_plan(session: AsyncSession, wanted: str | PlanCreate) -> PlanCreate:
    if isinstance(wanted, PlanCreate):
        return wanted
    plans = await repository.find_plans(session, plan_ids=[wanted])
    if not plans:
        raise PlanNotFound()
    read = read_plan(plans[0])
    return PlanCreate.model_construct(
        name=read.name,
        currency=read.currency,
        billing=read.billing,
        prices=list(read.prices),
        monthly_fee=read.monthly_fee,
    )


async def _fees(
    database: Database, wanted: PlanPreviewCreate
) -> AsyncGenerator[tuple[str, str, int]]:
    """Yield the accounts that owe fees for the month, in which currency, and how much."""
    async for accounts in _fee_accounts(database, wanted):
        async with database.snapshot() as session:
            currencies = await find_currencies(session, accounts=accounts)
            found = await find_fees(
                session, accounts=accounts, period=wanted.period, currencies=currencies
            )
        for account, fees in found.items():
            yield account, fees[0].plan.currency, sum(fee.amount for fee in fees)


async def _fee_accounts(database: Database, wanted: PlanPreviewCreate) -> AsyncGenerator[list[str]]:
    if wanted.account is not None:
        yield [wanted.account]
        return
    async for accounts in stream_fee_accounts(database, period=wanted.period):
        yield accounts


async def _currencies(database: Database, accounts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    bounds = [*range(0, len(accounts), _AT_ONCE), len(accounts)]
    for start, end in pairwise(bounds):
        async with database.snapshot() as session:
            found |= await find_currencies(session, accounts=accounts[start:end])
    return found
