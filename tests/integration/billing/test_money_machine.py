"""Honest processes on the real service: nothing is overspent and nothing is lost.

Processes request leases, spend, ship, die with or without their disk, lose responses, fall silent
and come back, in any order. The model knows only what each was granted and what each did.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import select

from harness.usage_events import Json
from services.billing.database import MIGRATIONS
from services.billing.ledger.sweeper import sweep
from services.billing.plans.service import plan_ids
from services.billing.sources.models import Journal
from services.billing.verify import verify
from services.common.contracts import LeaseRequest, parse_amount
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.billing.games import play
from tests.integration.billing.money import (
    NOON,
    credit,
    lease,
    money,
    new_id,
    prepaid_plan,
    send_report,
    spent,
    store_prepaid,
    take,
)
from tests.integration.billing.money import request as new_request
from tests.integration.billing.processes import Process, Wallet
from tests.integration.billing.tampering import cells, changed_cell

LOST_AFTER = timedelta(minutes=10)
LEDGER_CELLS = cells("ledger_entries", "ledger_postings")

number = st.integers(0, 50)
requests = st.lists(
    st.tuples(number, number, st.integers(1, 15), st.sampled_from(["new", "repeat", "rejected"])),
    min_size=1,
    max_size=8,
)


class Money(RuleBasedStateMachine):
    """The model. The test sets `database`, `run` and `per_row`.

    Amounts are drawn in rows, each of which costs `per_row`.
    """

    database: ClassVar[Database]
    run: ClassVar[Callable[[Coroutine[Any, Any, Any]], Any]]
    per_row: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.plan_id, (self.price_id,) = plan_ids(prepaid_plan(self.per_row))
        self.accounts = [new_id(), new_id()]
        self.credits = dict.fromkeys(self.accounts, 0)
        self.charged: dict[str, tuple[str, int]] = {}
        self.overdraft = dict.fromkeys(self.accounts, 0)
        """What lost processes had spent and not reported."""
        self.lost: set[str] = set()
        self.processes = [self._new_process(), self._new_process()]
        for which in range(len(self.accounts)):
            self.top_up(which, 40)

    # -- what may happen

    @rule(which=number, amount=st.integers(1, 10))
    def top_up(self, which: int, amount: int) -> None:
        account = self._account(which)
        self.credits[account] += amount * self.per_row
        self._do(credit(self.database, amount * self.per_row, account=account))

    @rule(
        which=number,
        who=number,
        kind=st.sampled_from(["background", "request", "release"]),
        minimum=st.integers(1, 20),
        more=st.integers(0, 20),
        reply_lost=st.booleans(),
    )
    def request_a_lease(
        self, which: int, who: int, kind: str, minimum: int, more: int, reply_lost: bool
    ) -> None:
        needed, wanted = minimum * self.per_row, (minimum + more) * self.per_row
        kinds: dict[str, dict[str, Any]] = {
            "background": {"desired": wanted},
            "request": {"minimum": needed, "desired": wanted},
            "release": {"release": True},
        }
        self._request_lease(who, which, reply_lost=reply_lost, **kinds[kind])

    @rule(who=number, which=number)
    def an_old_lease_request_arrives_again(self, who: int, which: int) -> None:
        process = self._alive(who)
        if process and process.sent:
            again = process.sent[which % len(process.sent)]
            before = self._money(again.account)
            self._do(lease(self.database, again, now=self.now, plan_id=self.plan_id))
            assert self._money(again.account) == before

    @rule(requests=requests)
    def answer_requests(self, requests: list[tuple[int, int, int, str]]) -> None:
        """Serve some requests, which may need a new lease.

        A repeat has the id of another request, perhaps with other rows, and the first to arrive is
        charged. A rejected event never is.
        """
        for who, which, rows, kind in requests:
            if process := self._alive(who):
                self._answer(process, who, which, rows, kind)

    @rule(requests=requests, times=st.integers(1, 3))
    def answer_and_ship(self, requests: list[tuple[int, int, int, str]], times: int) -> None:
        """Serve requests, and deliver all events, perhaps more than once."""
        self.answer_requests(requests)
        for process in [process for process in self.processes if process.has_disk] * times:
            self._deliver(process, list(range(len(process.events))))

    def _answer(self, process: Process, who: int, which: int, rows: int, kind: str) -> None:
        account = self._account(which)
        wallet = process.wallets.setdefault(account, Wallet())
        amount = rows * self.per_row
        if wallet.may_spend(now=self.now) < amount:
            self._request_lease(who, which, minimum=amount, desired=2 * amount)
        if wallet.may_spend(now=self.now) >= amount:
            wallet.spent += amount
            process.events.append(self._event(process, account, rows, kind))

    def _event(self, process: Process, account: str, rows: int, kind: str) -> Json:
        made = spent(
            rows,
            len(process.events) + 1,
            account=account,
            journal=process.journal,
            time=self.now,
            price_id=self.price_id,
        )
        known = [e["id"] for p in self.processes for e in p.events if "specversion" in e]
        if kind == "rejected":
            del made["specversion"]
        elif kind == "repeat" and known:
            made["id"] = known[rows % len(known)]
        return made

    @rule(who=number, first=number, size=st.integers(1, 8), backwards=st.booleans())
    def ship(self, who: int, first: int, size: int, backwards: bool) -> None:
        """Deliver some events of a process, dead or alive, whether delivered before or not."""
        process = self._any(who)
        if process.has_disk and process.events:
            first %= len(process.events)
            indices = list(range(first, min(first + size, len(process.events))))
            self._deliver(process, indices[::-1] if backwards else indices)

    @rule(who=number, how=st.sampled_from(["killed", "disk lost", "stopped"]))
    def end(self, who: int, how: str) -> None:
        """End a process and start another. One that stops has not shipped everything yet."""
        process = self._any(who)
        if how == "stopped" and process.alive:
            for which, account in enumerate(self.accounts):
                if account in process.wallets:
                    self._request_lease(self.processes.index(process), which, release=True)
            self._report(process, closed=True)
        process.has_disk = process.has_disk and how != "disk lost"
        self._end(process)

    def _end(self, process: Process) -> None:
        if process.alive:
            process.alive = False
            self.processes.append(self._new_process())

    @rule(minutes=st.sampled_from([1, 3, 9, 11]), heard=st.booleans())
    def time_passes(self, minutes: int, heard: bool) -> None:
        self.now += timedelta(minutes=minutes)
        for process in self.processes:
            if process.alive and heard:
                self._report(process)
        self._sweep()

    @precondition(lambda self: self.charged)
    @rule()
    def the_books_agree(self) -> None:
        assert self._do(verify(self.database)) == []

    @precondition(lambda self: self.charged)
    @rule(cell=st.sampled_from(LEDGER_CELLS), number=number)
    def a_changed_cell_is_found(self, cell: tuple[str, str], number: int) -> None:
        self._do(self._change_a_cell(*cell, number=number))

    async def _change_a_cell(self, table: str, column: str, *, number: int) -> None:
        async with changed_cell(self.database, table, column, number=number) as is_changed:
            if is_changed:
                assert await verify(self.database) != []

    # -- what must be true

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        for account in self.accounts:
            promised = sum(
                process.wallets[account].may_spend(now=self.now)
                for process in self.processes
                if process.alive and account in process.wallets
            )
            has = self.credits[account] + self.overdraft[account]
            assert self._committed(account) + promised <= has

    def teardown(self) -> None:
        for process in self.processes:
            if process.has_disk:
                for start in range(0, len(process.events), 7):
                    indices = range(start, min(start + 7, len(process.events)))
                    self._deliver(process, list(indices))
                self._report(process, closed=True)
        self.now += LOST_AFTER
        self._sweep()

        assert self._do(verify(self.database)) == []
        for account in self.accounts:
            paid = sum(amount for who, amount in self.charged.values() if who == account)
            assert self._money(account) == (self.credits[account] - paid, 0)
            assert paid <= self.credits[account] + self.overdraft[account]
            self._spend_the_rest(account)

    def _spend_the_rest(self, account: str) -> None:
        rest, _ = self._money(account)
        last = self._new_process()
        self.processes = [last]
        if rest > 0:
            which = self.accounts.index(account)
            self._request_lease(0, which, minimum=rest, desired=rest)
            wallet = last.wallets[account]
            assert wallet.granted == rest
            for rows in filter(None, (rest // self.per_row - 1, 1)):
                self.answer_requests([(0, which, rows, "new")])
            self._deliver(last, list(range(len(last.events))))
            assert self._money(account) == (0, 0)
        one_more = new_request(100, account=account, journal=new_id(), minimum=1)
        (terms,) = self._do(lease(self.database, one_more, now=self.now, plan_id=self.plan_id))
        assert terms.status == "no_credit"

    # -- how it happens

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return type(self).run(work)

    def _new_process(self) -> Process:
        return Process(per_row=self.per_row)

    def _account(self, which: int) -> str:
        return self.accounts[which % len(self.accounts)]

    def _any(self, who: int) -> Process:
        return self.processes[who % len(self.processes)]

    def _alive(self, who: int) -> Process | None:
        process = self._any(who)
        return process if process.alive else None

    def _money(self, account: str) -> tuple[int, int]:
        found: tuple[int, int] = self._do(money(self.database, account=account))
        return found

    def _committed(self, account: str) -> int:
        """Return what is charged, plus what has been spent and may still be charged."""
        charged = sum(amount for who, amount in self.charged.values() if who == account)
        return charged + sum(process.outstanding(account) for process in self.processes)

    def _request_lease(
        self, who: int, which: int, *, reply_lost: bool = False, **members: Any
    ) -> None:
        process = self._alive(who)
        if process is None:
            return
        account = self._account(which)
        wallet = process.wallets.setdefault(account, Wallet())
        request: LeaseRequest = new_request(
            len(process.sent) + 1,
            account=account,
            journal=process.journal,
            spent=wallet.spent,
            **members,
        )
        process.sent.append(request)
        (terms,) = self._do(lease(self.database, request, now=self.now, plan_id=self.plan_id))
        if reply_lost:
            wallet.frozen = wallet.frozen or bool(request.minimum or request.release)
            return
        granted = parse_amount(terms.granted)
        if not (request.minimum or request.release or wallet.frozen or process.was_lost):
            assert granted >= wallet.granted
        wallet.granted, wallet.frozen, wallet.requested_at = granted, False, self.now
        if request.minimum and terms.status != "ok":
            assert wallet.granted <= wallet.spent
        if request.minimum and terms.status == "ok":
            assert wallet.granted - wallet.spent >= request.minimum
        if terms.status == "no_credit":
            # What a lost disk had counts as spent until its journal is declared lost.
            gone = sum(each.unreported(account) for each in self.processes if not each.has_disk)
            free = self.credits[account] - self._committed(account) - gone
            assert free < max(request.minimum, 1)

    def _deliver(self, process: Process, indices: list[int]) -> None:
        events = [process.events[index] for index in indices]
        self._do(take(self.database, events, now=self.now, plan_id=self.plan_id))
        process.arrived.update(indices)
        for event in events:
            if "specversion" in event and event["id"] not in self.charged:
                amount = event["data"]["rows"] * self.per_row
                self.charged[event["id"]] = (event["subject"], amount)

    def _report(self, process: Process, *, closed: bool = False) -> None:
        self._do(
            send_report(
                self.database,
                len(process.events),
                closed=closed,
                journal=process.journal,
                now=self.now,
            )
        )

    def _sweep(self) -> None:
        outstanding = {
            (process.journal, account): process.outstanding(account)
            for process in self.processes
            for account in self.accounts
        }
        self._do(sweep(self.database, now=self.now, listening_since=NOON - LOST_AFTER))
        lost = self._do(self._lost())
        for (journal, account), amount in outstanding.items():
            if journal in lost - self.lost:
                self.overdraft[account] += amount
        self.lost = lost
        for process in self.processes:
            process.was_lost = process.was_lost or process.journal in lost

    async def _lost(self) -> set[str]:
        journals = [process.journal for process in self.processes]
        async with self.database.snapshot() as session:
            return set(
                await session.scalars(
                    select(Journal.id).where(Journal.id.in_(journals), Journal.lost)
                )
            )


LARGE = pytest.param(7 * 10**18 + 3, id="beyond_64_bits", marks=pytest.mark.any_database)
"""What is particular to sums of this size on MySQL is in test_large_sums.py."""


@pytest.fixture(params=[pytest.param(1, id="small"), LARGE])
def machine(
    request: pytest.FixtureRequest, database_kind: str, new_database_url: Callable[[str], str]
) -> Iterator[type[RuleBasedStateMachine]]:
    """Yield the machine with its own database and, as its rules are synchronous, its own loop."""
    url = new_database_url(database_kind)
    migrate(url, MIGRATIONS)
    loop = asyncio.new_event_loop()
    database = Database(url)
    loop.run_until_complete(store_prepaid(database, per_row=request.param))

    members = {"database": database, "run": loop.run_until_complete, "per_row": request.param}
    yield type("Money", (Money,), members)

    loop.run_until_complete(database.close())
    loop.close()


@pytest.mark.costly
def test_nothing_is_overspent_and_nothing_is_lost(
    machine: type[RuleBasedStateMachine],
) -> None:
    play(machine, games=6, steps=20)


@pytest.mark.slow
def test_nothing_is_overspent_and_nothing_is_lost_in_many_long_games(
    machine: type[RuleBasedStateMachine], database_kind: str
) -> None:
    play(machine, games=50 if database_kind == "sqlite" else 15, steps=30)
