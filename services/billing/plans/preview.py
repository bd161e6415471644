"""Previews of plans: a past month's usage and fees, priced again under another plan."""

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

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
from services.billing.plans.pricing import charge, charge_together
from services.billing.plans.schemas import PlanCreate, PriceCreate
from services.billing.plans.service import PlanNotFound, read_plan
from services.billing.usage.sums import Sums
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


class _Prices:
    """The prices of a plan, and what an account pays by them."""

    def __init__(self, prices: Sequence[PriceCreate]) -> None:
        self._prices = {price.model: price for price in prices}

    @property
    def are_the_same_for_all_models(self) -> bool:
        return self._prices.keys() == {None}

    def charge_together(self, used: Iterable[tuple[str, int, int]]) -> int | None:
        """Return what an account pays for its requests and rows of each model.

        None if that depends on the order of the requests.
        """
        requests, rows = Counter[str | None](), Counter[str | None]()
        for model, more_requests, more_rows in used:
            key = model if model in self._prices else None
            requests[key] += more_requests
            rows[key] += more_rows
        amounts = [
            charge_together(
                tiers=price.tiers,
                included_requests=price.included_requests,
                requests=requests[key],
                rows=rows[key],
            )
            for key, price in self._prices.items()
        ]
        known = [amount for amount in amounts if amount is not None]
        return sum(known) if len(known) == len(amounts) else None

    def charge_next(self, model: str, rows: int, *, numbers: Counter[str | None]) -> int:
        """Return what an account's next request costs; 0 for a model that the plan does not sell.

        Args:
            numbers: how many requests the account has made, by price; this one is added.
        """
        key = model if model in self._prices else None
        price = self._prices.get(key)
        if price is None:
            return 0
        numbers[key] += 1
        return charge(
            tiers=price.tiers,
            included_requests=price.included_requests,
            number=numbers[key],
            rows=rows,
        )


async def preview(
    database: Database, archives: Archives = NO_ARCHIVES, *, wanted: PlanPreviewCreate
) -> PlanPreviewRead:
    """Replay a month under a plan: what each account paid, and would have paid.

    Sums are enough for most plans and accounts. Where the order of the requests counts, because
    rows cost more or less after some requests, the account's events are replayed. They are
    streamed, so that memory grows with the accounts, not with the events. Each account pays the
    plan's whole monthly fee, instead of what it owes as fees for the month.

    Raises:
        PlanNotFound: there is no plan with this id.
        BodyInvalid: the account's currency is not the plan's.
    """
    async with database.snapshot() as session:
        plan = await _find_plan(session, wanted.plan)
    prices = _Prices(plan.prices)
    async with long_snapshot(database) as connection:
        used = await repository.sum_month(connection, period=wanted.period, account=wanted.account)
        after = await _charge(connection, archives, wanted=wanted, prices=prices, used=used)
    sums = {account: (each.amount, after[account]) for account, each in used.items()}
    currencies = await _currencies(database, sorted(sums))
    async for account, currency, fees in _fees(database, wanted):
        before, new = sums.get(account, (0, 0))
        sums[account] = before + fees, new
        currencies.setdefault(account, currency)
    if wanted.account in sums and currencies[wanted.account] != plan.currency:
        raise BodyInvalid([{"loc": ["body", "plan"], "msg": "Must be in the account's currency."}])
    same = {
        account: (before, new + plan.monthly_fee)
        for account, (before, new) in sums.items()
        if currencies[account] == plan.currency
    }
    return _read(wanted.period, same)


async def _charge(
    connection: AsyncConnection,
    archives: Archives,
    *,
    wanted: PlanPreviewCreate,
    prices: _Prices,
    used: Mapping[str, Sums],
) -> dict[str, int]:
    """Return what each account pays for its usage under other prices."""
    parts = await list_files(connection, period=wanted.period, account=wanted.account)
    by_account: dict[str, list[tuple[str, int, int]]] = {}
    if prices.are_the_same_for_all_models:
        by_account = {account: [("", each.requests, each.rows)] for account, each in used.items()}
    elif not parts:
        for account, model, requests, rows in await repository.sum_models(
            connection, period=wanted.period, account=wanted.account
        ):
            by_account.setdefault(account, []).append((model, requests, rows))
    found = {account: prices.charge_together(each) for account, each in by_account.items()}
    after = {account: amount for account, amount in found.items() if amount is not None}
    in_order = used.keys() - after.keys()
    if not in_order:
        return after
    only = wanted.account if len(in_order) > 1 else min(in_order)
    events = (
        _stream_archived(archives, parts, account=only)
        if parts
        else repository.stream_month(connection, period=wanted.period, account=only)
    )
    numbers: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    async for account, model, rows in events:
        if account in in_order:
            cost = prices.charge_next(model, rows, numbers=numbers[account])
            after[account] = after.get(account, 0) + cost
    return after


async def _stream_archived(
    archives: Archives, parts: Sequence[ArchivePart], *, account: str | None
) -> AsyncIterator[tuple[str, str, int]]:
    """Yield account, model and rows of archived events, by account, as accepted."""
    wanted = Wanted(account=account)
    async for page in archives.stream(parts, wanted, order_by=AS_ACCEPTED):
        for event in page:
            yield event.account, event.model, event.rows


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
