"""Slices of prepaid money: granted, given back, settled, and taken from the dead."""

import asyncio
from datetime import timedelta

import pytest
from httpx import AsyncClient
from sqlalchemy import update

from services.billing.leases.sweeper import sweep
from services.billing.models import Account
from services.billing.wide import split
from services.common.contracts import MAX_SUM, LeaseTerms
from services.common.db import Database
from tests.billing.money import (
    NOON,
    PRICE_ID,
    ask,
    charged,
    credit,
    granted,
    lease,
    money,
    new_id,
    spent,
    store_prepaid,
    take,
    tell,
)
from tests.billing.tokens import Headers
from tests.billing.wire import ADA, BOB, give_plan, plan

OTHER = "0198b000-0000-7000-8000-000000000002"
LOST = NOON + timedelta(minutes=10)


class TestGrant:
    async def test_a_request_that_waits_gets_what_it_needs_and_what_it_wants(
        self, prepaid: Database
    ) -> None:
        assert await granted(prepaid, ask(1, at_least=5, want=30)) == ("ok", 30)
        assert await money(prepaid) == (70, 30)

    async def test_grants_are_cumulative(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, at_least=5, want=30))

        assert await granted(prepaid, ask(2, spent=20, at_least=5, want=30)) == ("ok", 50)
        assert await money(prepaid) == (50, 50)

    async def test_a_background_ask_gets_at_most_half_of_what_is_there(
        self, prepaid: Database
    ) -> None:
        assert await granted(prepaid, ask(1, want=80)) == ("ok", 50)
        assert await granted(prepaid, ask(2, spent=0, want=80)) == ("ok", 75)

    async def test_the_last_of_it_can_be_had_in_the_background(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, journal=OTHER, at_least=99))

        assert await granted(prepaid, ask(1, want=5)) == ("ok", 1)

    async def test_a_background_ask_never_takes_back(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=40))

        assert await granted(prepaid, ask(2, want=0)) == ("ok", 40)

    async def test_all_of_it_can_be_had_by_one(self, prepaid: Database) -> None:
        assert await granted(prepaid, ask(1, at_least=100)) == ("ok", 100)
        assert await granted(prepaid, ask(2, spent=100, at_least=1)) == ("no_credit", 100)

    async def test_what_does_not_suffice_is_given_back_whole(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=10))

        assert await granted(prepaid, ask(2, spent=4, at_least=200)) == ("no_credit", 4)
        assert await money(prepaid) == (96, 4)

    async def test_what_another_holds_is_said_to_be_held(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, journal=OTHER, at_least=60))

        assert await granted(prepaid, ask(1, at_least=50)) == ("held_elsewhere", 0)
        await granted(prepaid, ask(2, journal=OTHER, spent=15))
        assert await granted(prepaid, ask(2, at_least=86)) == ("no_credit", 0)
        assert await granted(prepaid, ask(3, at_least=85)) == ("held_elsewhere", 0)

    async def test_release_gives_back_what_was_not_spent(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=40))

        assert await granted(prepaid, ask(2, spent=13, release=True)) == ("ok", 13)
        assert await money(prepaid) == (87, 13)

    async def test_an_ask_delivered_again_changes_nothing(self, prepaid: Database) -> None:
        first = await granted(prepaid, ask(3, at_least=5, want=30))

        again = await granted(prepaid, ask(3, at_least=5, want=30))
        older = await granted(prepaid, ask(2, release=True))

        assert first == again == older == ("ok", 30)
        assert await money(prepaid) == (70, 30)

    async def test_more_spent_than_granted_takes_nothing_below_zero(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, ask(1, want=10))

        status, _ = await granted(prepaid, ask(2, spent=10_000, at_least=1))

        assert status == "no_credit"
        available, held = await money(prepaid)
        assert available >= 0
        assert available + held == 100

    async def test_less_spent_than_was_settled_gives_back_no_more_than_is_left(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, ask(1, want=50))
        await take(prepaid, [spent(30, 1)])

        assert await granted(prepaid, ask(2, spent=0, release=True)) == ("ok", 30)
        assert await money(prepaid) == (70, 0)

    async def test_an_account_without_credit_has_none(self, prepaid: Database) -> None:
        assert await granted(prepaid, ask(1, account=BOB, want=5)) == ("no_credit", 0)
        assert await granted(prepaid, ask(1, account=BOB, at_least=5)) == ("no_credit", 0)

    async def test_a_top_up_is_felt_at_the_next_ask(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, at_least=101))
        await credit(prepaid, 1)

        assert await granted(prepaid, ask(2, at_least=101)) == ("ok", 101)

    async def test_many_asks_in_one_call_are_answered_in_turn(self, prepaid: Database) -> None:
        await credit(prepaid, 10, account=BOB)

        terms = await lease(
            prepaid,
            ask(1, at_least=60),
            ask(1, account=BOB, at_least=10),
            ask(1, journal=OTHER, at_least=60),
            ask(2, spent=60, release=True),
        )

        assert [each.status for each in terms] == ["ok", "ok", "held_elsewhere", "ok"]
        assert await money(prepaid) == (40, 60)
        assert await money(prepaid, account=BOB) == (0, 10)

    async def test_an_account_that_became_postpaid_can_still_release(
        self, prepaid: Database, client: AsyncClient, admin: Headers
    ) -> None:
        await granted(prepaid, ask(1, want=40))
        await give_plan(client, admin, plan())
        later = NOON + timedelta(days=365)

        (kept,) = await lease(prepaid, ask(2, want=40), now=later)
        (released,) = await lease(prepaid, ask(3, release=True), now=later)

        assert (kept.billing, kept.granted, kept.status) == ("postpaid", "0", "ok")
        assert released.granted == "0"
        assert await money(prepaid) == (100, 0)


class TestAtOnce:
    async def test_parallel_leases_never_exceed_the_credit(self, prepaid: Database) -> None:
        asks = [ask(1, journal=new_id(), at_least=7) for _ in range(24)]

        answers = await asyncio.gather(*(granted(prepaid, asked) for asked in asks))

        assert sum(amount for _, amount in answers) == 14 * 7
        assert sorted({status for status, _ in answers}) == ["held_elsewhere", "ok"]
        assert await money(prepaid) == (2, 98)

    async def test_asks_and_events_and_top_ups_at_once_keep_the_balance(
        self, prepaid: Database
    ) -> None:
        journals = [new_id() for _ in range(4)]
        accounts = [ADA, BOB]
        await credit(prepaid, 1000, account=BOB)

        async def process(journal: str) -> None:
            events = [
                spent(1, 4 * turn + each + 1, journal=journal, account=accounts[each % 2])
                for turn in range(5)
                for each in range(4)
            ]
            await lease(prepaid, *(ask(1, account=who, journal=journal) for who in accounts))
            for turn in range(5):
                done = 2 * turn
                asks = [
                    ask(turn + 2, account=account, journal=journal, spent=done, want=4)
                    for account in reversed(accounts)
                ]
                batch = events[4 * turn : 4 * turn + 4]
                await asyncio.gather(
                    lease(prepaid, *asks),
                    take(prepaid, batch),
                    take(prepaid, batch[::-1]),
                    credit(prepaid, 1),
                )
            await tell(prepaid, len(events), closed=True, journal=journal)
            await sweep(prepaid, now=NOON, listening_since=NOON)

        await asyncio.gather(*(process(journal) for journal in journals))
        await sweep(prepaid, now=NOON, listening_since=NOON)

        assert await charged(prepaid) == 4 * 10
        assert await money(prepaid) == (100 + 4 * 5 - 40, 0)
        assert await money(prepaid, account=BOB) == (1000 - 40, 0)


class TestSettle:
    async def test_an_event_settles_the_slice_it_was_spent_from(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=50))

        await take(prepaid, [spent(20, 1), spent(5, 2)])

        assert await money(prepaid) == (50, 25)
        assert await charged(prepaid) == 25

    async def test_delivered_again_it_settles_nothing(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=50))
        events = [spent(20, 1), spent(5, 2)]

        for batch in (events, events, [*events, *events]):
            await take(prepaid, batch)

        assert await money(prepaid) == (50, 25)

    async def test_what_was_spent_on_a_repeat_goes_back(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=50))

        await take(prepaid, [spent(20, 1, id="same"), spent(20, 2, id="same")])
        await take(prepaid, [spent(5, 3, id="same"), spent(5, 4, id="same")])  # conflicts

        assert await charged(prepaid) == 20
        assert await money(prepaid) == (80, 0)

    @pytest.mark.parametrize(
        "members",
        [
            {"specversion": "2.0"},
            {"time": "yesterday"},
            {"id": "not ascii: é"},
            {"time": (NOON + timedelta(hours=1)).isoformat()},
        ],
    )
    async def test_what_was_spent_on_a_rejected_event_goes_back(
        self, prepaid: Database, members: dict[str, str]
    ) -> None:
        await granted(prepaid, ask(1, want=50))

        result = await take(prepaid, [spent(20, 1, **members), spent(5, 2)])

        assert (result.accepted, len(result.rejected)) == (1, 1)
        assert await money(prepaid) == (70, 25)

    async def test_an_event_rejected_first_and_taken_later_is_paid_by_the_account(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, ask(1, want=50))
        early = spent(20, 1, time=(NOON + timedelta(hours=1)).isoformat())
        await take(prepaid, [early])

        await take(prepaid, [early], now=NOON + timedelta(hours=1))

        assert await money(prepaid) == (50, 30)
        assert await charged(prepaid) == 20

    async def test_a_second_id_at_a_number_is_paid_by_the_account(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=50))

        await take(prepaid, [spent(20, 1), spent(3, 1)])

        assert await money(prepaid) == (47, 30)
        assert await charged(prepaid) == 23

    async def test_an_event_of_no_journal_is_paid_by_the_account(self, prepaid: Database) -> None:
        await granted(prepaid, ask(1, want=50))

        await take(prepaid, [spent(20), spent(7, 1, journal=OTHER)])

        assert await money(prepaid) == (23, 50)

    async def test_below_the_least_sum_it_is_rejected_and_never_wraps(
        self, database: Database
    ) -> None:
        await store_prepaid(database)
        await credit(database, 100)
        high, low = split(-MAX_SUM)
        async with database.transaction() as session:
            await session.execute(update(Account).values(available_high=high, available_low=low))

        result = await take(database, [spent(1, 1)])

        assert [each.reason for each in result.rejected] == ["the amount is too large"]
        assert await money(database) == (-MAX_SUM, 0)


class TestRateLimit:
    LIMITED = plan(rate_limit={"per_second": 30, "burst": 6}, name="Limited")

    @staticmethod
    def share(terms: LeaseTerms) -> tuple[float, float]:
        assert terms.rate_limit is not None
        return round(terms.rate_limit.per_second, 9), round(terms.rate_limit.burst, 9)

    @pytest.mark.parametrize("billing", ["postpaid", "prepaid"])
    async def test_it_is_shared_by_demand_among_those_that_asked_lately(
        self, prepaid: Database, client: AsyncClient, admin: Headers, billing: str
    ) -> None:
        await give_plan(client, admin, self.LIMITED | {"billing": billing})
        now = NOON + timedelta(days=365)

        (alone,) = await lease(prepaid, ask(1, demand=0), now=now)
        (second,) = await lease(prepaid, ask(1, journal=OTHER, demand=1), now=now)
        (first,) = await lease(prepaid, ask(2, demand=9), now=now)
        (again,) = await lease(prepaid, ask(2, journal=OTHER, demand=1), now=now)

        assert self.share(alone) == (30, 6)
        assert self.share(second) == (20, 4)
        assert self.share(first) == (25, 5)
        assert self.share(again) == (5, 1)
        later = now + timedelta(seconds=30)
        (left,) = await lease(prepaid, ask(3, journal=OTHER, demand=1), now=later)
        assert self.share(left) == (30, 6)


class TestPlans:
    @pytest.mark.parametrize(
        "wanted",
        [
            {"included_requests": 1},
            {
                "tiers": [
                    {"up_to_requests": 1, "per_request": "1", "per_row": "0"},
                    {"up_to_requests": None, "per_request": "1", "per_row": "0"},
                ]
            },
        ],
    )
    async def test_a_prepaid_plan_has_one_flat_price_per_model(
        self, client: AsyncClient, admin: Headers, wanted: dict[str, object]
    ) -> None:
        prices = [plan()["prices"][0] | wanted]

        prepaid = await client.post("/plans", headers=admin, json=plan(*prices, billing="prepaid"))
        postpaid = await client.post("/plans", headers=admin, json=plan(*prices))

        assert (prepaid.status_code, postpaid.status_code) == (422, 201)

    async def test_events_name_the_price_they_were_spent_at(self, prepaid: Database) -> None:
        (terms,) = await lease(prepaid, ask(1))

        assert [price.price_id for price in terms.prices] == [PRICE_ID]
