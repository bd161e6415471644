"""Recalls, adjustments and credit notes in any order: nothing is given back twice, nothing is lost.

What each invoice gives back is added up from what is stored and shown: credit notes, credits on
later invoices, and the balance.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import select

from harness.plans import LOCAL_PLAN
from harness.usage_events import Json
from services.billing.corrections import adjustments, credit_notes, recalls
from services.billing.corrections.adjustments import AdjustmentCreate, NothingToAdjust
from services.billing.corrections.credit_notes import CreditNoteCreate, CreditTooLarge
from services.billing.corrections.models import CreditNote
from services.billing.corrections.recalls import AlreadyRecalled, RecallCreate
from services.billing.database import MIGRATIONS
from services.billing.invoices import closing
from services.billing.invoices.issuing import rest_id
from services.billing.invoices.models import AccountCredit, ReversedLine
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.shares import LineKey, LineShare, line_shares
from services.billing.periods import next_period, period_of, start_of
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.billing.verify import verify
from services.common.contracts import parse_amount
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.db.retrying import in_transaction
from tests.integration.billing.games import play
from tests.integration.billing.money import credit, new_id, prepaid_plan, spent, take
from tests.integration.billing.months import (
    BOOKS,
    LOCAL_PLAN_ID,
    LOCAL_PRICE_ID,
    UNTAXED,
    read_invoice,
    store_profile,
)

UNIT = 10**7
PREPAID = prepaid_plan(1_234_567)
_, (PREPAID_PRICE_ID,) = plan_ids(PREPAID)

models = st.sampled_from(["iris", "wine"])
versions = st.sampled_from(["one", "two"])
number = st.integers(0, 50)


class GivenBack(NamedTuple):
    """What was given back of an invoice, with tax; by line, as far as it is known of which."""

    total: int
    lines: Counter[LineKey]


class GivingBack(RuleBasedStateMachine):
    """The model. The test sets `database` and `run`; a game continues the months of the last."""

    database: ClassVar[Database]
    run: ClassVar[Callable[[Coroutine[Any, Any, Any]], Any]]
    period: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.account = new_id()
        self.game = self.account[:8]
        self.invoices: list[InvoiceRead] = []
        self._pass_a_month()
        self._do(store_profile(self.database, account=self.account))
        self._do(credit(self.database, 10**15, account=self.account))
        self._use_everything()
        self.close_the_month(is_taxed=True)
        self._use_everything()

    # -- what may happen

    @rule(
        model=models,
        version=versions,
        rows=st.lists(st.sampled_from([1, 3, 7, 333, 20_000]), min_size=1, max_size=4),
        is_prepaid=st.booleans(),
        is_late=st.booleans(),
    )
    def use(
        self, model: str, version: str, rows: list[int], is_prepaid: bool, is_late: bool
    ) -> None:
        """Deliver usage of this month, or of the one before, which is closed."""
        time = self.now - timedelta(days=31 * is_late)
        self._take(self._events(model, version, rows, is_prepaid=is_prepaid, time=time))

    @rule(is_taxed=st.booleans())
    def close_the_month(self, is_taxed: bool) -> None:
        closed = self.period
        self._pass_a_month()
        run = self._do(
            closing.run(
                self.database,
                period=closed,
                forced_reason=None,
                books=BOOKS if is_taxed else UNTAXED,
                now=self.now,
            )
        )
        for issued in run.invoices:
            self.invoices.append(self._do(read_invoice(self.database, issued.id)))

    @rule(model=models, version=versions)
    def recall(self, model: str, version: str) -> None:
        body = RecallCreate(model=model, version=self._version(version), reason="A recall.")
        self._try(
            lambda session: recalls.create(session, recall=body, by="a test", now=self.now),
            AlreadyRecalled,
        )
        self._apply_recalls()

    @rule()
    def _apply_recalls(self) -> None:
        self._do(recalls.apply(self.database, now=self.now))

    @rule(model=st.none() | models, version=st.none() | versions, is_of_closed_months=st.booleans())
    def adjust(self, model: str | None, version: str | None, is_of_closed_months: bool) -> None:
        chosen = {
            "account": self.account,
            "model": model,
            "version": version and self._version(version),
            "to": start_of(self.period).isoformat() if is_of_closed_months else None,
        }
        body = AdjustmentCreate.model_validate({"filter": chosen, "reason": "An adjustment."})
        events = self._do(adjustments.select_events(self.database, body))
        self._try(
            lambda session: adjustments.create(
                session, adjustment=body, events=events, by="a test", books=BOOKS, now=self.now
            ),
            NothingToAdjust,
        )

    @precondition(lambda self: self.invoices)
    @rule(
        which=number,
        what=st.none()
        | st.sampled_from([1, 100, 900, 2500])
        | st.lists(
            st.tuples(st.integers(0, 3), st.none() | st.sampled_from([1, 100, 900])),
            min_size=1,
            unique_by=lambda line: line[0],
        ),
    )
    def note(self, which: int, what: int | list[tuple[int, int | None]] | None) -> None:
        """Issue a credit note of all that is left, of some cents, or of some lines."""
        invoice = self.invoices[which % len(self.invoices)]
        given: dict[str, Any] = {}
        if isinstance(what, int):
            given["amount"] = str(what / 100)
        elif what:
            given["lines"] = [
                {"line": line} | ({"amount": str(cents / 100)} if cents else {})
                for line, cents in what
                if line < len(invoice.lines)
            ] or [0]
        body = CreditNoteCreate.model_validate({"reason": "A note.", **given})
        self._try(
            lambda session: credit_notes.create(
                session,
                invoice_id=invoice.id,
                note=body,
                by="a test",
                books=BOOKS,
                now=self.now,
            ),
            CreditTooLarge,
        )

    # -- what must be true

    @invariant()
    def no_invoice_gives_back_more_than_was_paid(self) -> None:
        for invoice in self.invoices:
            shares = _shares(invoice)
            given = self._do(_given_back(self.database, invoice))
            assert given.total <= _paid(shares)
            for line, amount in given.lines.items():
                # A line may also get the fraction of a cent that another one lacks.
                assert amount < _most(shares[line]) + UNIT

    def teardown(self) -> None:
        """Take all that is left back; then nothing was lost, and the books agree."""
        self.close_the_month(is_taxed=True)
        self.adjust(None, None, is_of_closed_months=False)
        self._apply_recalls()

        for invoice in self.invoices:
            given = self._do(_given_back(self.database, invoice))
            assert given.total == _paid(_shares(invoice))
        assert self._do(verify(self.database)) == []

    # -- how it happens

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return type(self).run(work)

    def _use_everything(self) -> None:
        """Use both models and versions, so that lines can be taken back in parts."""
        used = [
            ("wine", "one", [100_000, 1]),
            ("wine", "two", [30_000, 1]),
            ("iris", "one", [50_000, 3]),
            ("iris", "two", [7]),
        ]
        self._take(
            [
                event
                for each in used
                for is_prepaid in (False, True)
                for event in self._events(*each, is_prepaid=is_prepaid, time=self.now)
            ]
        )

    def _events(
        self, model: str, version: str, rows: list[int], *, is_prepaid: bool, time: datetime
    ) -> list[Json]:
        price_id = PREPAID_PRICE_ID if is_prepaid else LOCAL_PRICE_ID
        events = [
            spent(each, account=self.account, time=time, model=model, price_id=price_id)
            for each in rows
        ]
        for event in events:
            event["data"]["version"] = self._version(version)
        return events

    def _take(self, events: list[Json]) -> None:
        self._do(take(self.database, events, now=self.now, plan_id=LOCAL_PLAN_ID))

    def _try(self, change: Callable[[Any], Any], refusal: type[Exception]) -> None:
        with suppress(refusal):
            self._do(in_transaction(self.database, change))

    def _version(self, name: str) -> str:
        """Return a version of this game alone: a recall is of all accounts."""
        return f"{name}-{self.game}"

    def _pass_a_month(self) -> None:
        type(self).period = next_period(self.period)
        self.now: datetime = start_of(self.period) + timedelta(days=20)


def _shares(invoice: InvoiceRead) -> dict[LineKey, LineShare]:
    keys = [LineKey(line.model or "", line.price_id) for line in invoice.lines]
    lines = [(parse_amount(line.amount), parse_amount(line.rounded)) for line in invoice.lines]
    rate = AppliedTax(rate=invoice.tax.rate, reason="").fraction
    return dict(zip(keys, line_shares(lines, rate=rate, unit=UNIT), strict=True))


def _most(share: LineShare) -> int:
    """Return what a line charged: a balance pays the exact amount."""
    return max(share.amount, share.rounded) + share.tax


def _paid(shares: dict[LineKey, LineShare]) -> int:
    """Return what was paid for an invoice's lines: of prepaid ones, the exact amount."""
    return sum(
        (share.amount if line.price_id == PREPAID_PRICE_ID else share.rounded) + share.tax
        for line, share in shares.items()
    )


async def _given_back(database: Database, invoice: InvoiceRead) -> GivenBack:
    shown = {each.id: parse_amount(each.amount) for each in invoice.credits}
    is_mine = {"account": invoice.account, "period": invoice.period}
    lines: Counter[LineKey] = Counter()
    async with database.snapshot() as session:
        rests = {
            each.id: each.amount
            for each in await session.scalars(
                select(AccountCredit).where(AccountCredit.cause == invoice.id)
            )
        }
        for each in await session.scalars(select(AccountCredit).filter_by(**is_mine)):
            amount = each.amount
            if not each.includes_tax:
                assert each.invoice_id == invoice.id
                amount = shown.get(each.id, 0) + rests.get(rest_id(each.id, invoice.id), 0)
            lines[LineKey(each.model, each.price_id)] += amount
        for line in await session.scalars(select(ReversedLine).filter_by(**is_mine)):
            lines[LineKey(line.model, line.price_id)] += line.returned
        total = sum(lines.values())
        total += shown.get("returned", 0) + rests.get(rest_id("returned", invoice.id), 0)
        of_invoice = select(CreditNote).filter_by(invoice_id=invoice.id)
        notes = await session.scalars(of_invoice.order_by(CreditNote.sequence))
        owed = parse_amount(invoice.total)
        for note in notes.all():
            # What is owed is reduced first. The balance may have paid less than the invoice shows.
            total += min(note.amount, owed) + note.to_balance
            owed -= min(note.amount, owed)
            for part in note.lines:
                line_of = invoice.lines[part["line"]]
                lines[LineKey(line_of.model or "", line_of.price_id)] += parse_amount(
                    part["amount"]
                )
    return GivenBack(total, lines)


@pytest.fixture
def machine(
    database_kind: str, new_database_url: Callable[[str], str]
) -> Iterator[type[RuleBasedStateMachine]]:
    """Yield the machine with its own database and, as its rules are synchronous, its own loop."""
    url = new_database_url(database_kind)
    migrate(url, MIGRATIONS)
    loop = asyncio.new_event_loop()
    database = Database(url)
    loop.run_until_complete(_store_plans(database))

    start = period_of(datetime(2026, 1, 1, tzinfo=UTC))
    members = {"database": database, "run": loop.run_until_complete, "period": start}
    yield type("GivingBack", (GivingBack,), members)

    loop.run_until_complete(database.close())
    loop.close()


async def _store_plans(database: Database) -> None:
    async with database.transaction() as session:
        for plan in (PREPAID, PlanCreate.model_validate(LOCAL_PLAN)):
            await store_plan(session, plan=plan, now=datetime.now(UTC))


@pytest.mark.costly
@pytest.mark.any_database
def test_nothing_is_given_back_twice_and_nothing_is_lost(
    machine: type[RuleBasedStateMachine],
) -> None:
    play(machine, games=3, steps=12)


@pytest.mark.slow
def test_nothing_is_given_back_twice_in_many_long_games(
    machine: type[RuleBasedStateMachine], database_kind: str
) -> None:
    play(machine, games=25 if database_kind == "sqlite" else 6, steps=25)
