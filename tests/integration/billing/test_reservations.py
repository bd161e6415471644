"""Credit reservations: granted, given back, settled, and reclaimed from dead processes."""

import asyncio
from datetime import timedelta

import pytest
from httpx import AsyncClient
from sqlalchemy import update

from harness.issuer import Headers
from harness.plans import plan
from harness.usage_events import ADA, BOB, assign_plan
from services.billing.amounts import split
from services.billing.ledger.sweeper import sweep
from services.billing.models import Account
from services.common.contracts import MAX_SUM, LeaseTerms
from services.common.db.database import Database
from tests.integration.billing.money import (
    NOON,
    PRICE_ID,
    charged,
    credit,
    granted,
    lease,
    money,
    new_id,
    request,
    send_report,
    spent,
    store_prepaid,
    take,
)

OTHER = "0198b000-0000-7000-8000-000000000002"
LOST = NOON + timedelta(minutes=10)


class TestGrant:
    async def test_a_waiting_request_gets_its_minimum_and_what_is_desired(
        self, prepaid: Database
    ) -> None:
        assert await granted(prepaid, request(1, minimum=5, desired=30)) == ("ok", 30)
        assert await money(prepaid) == (70, 30)

    async def test_grants_are_cumulative(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, minimum=5, desired=30))

        assert await granted(prepaid, request(2, spent=20, minimum=5, desired=30)) == ("ok", 50)
        assert await money(prepaid) == (50, 50)

    async def test_a_background_request_gets_at_most_half_of_what_is_available(
        self, prepaid: Database
    ) -> None:
        assert await granted(prepaid, request(1, desired=80)) == ("ok", 50)
        assert await granted(prepaid, request(2, spent=0, desired=80)) == ("ok", 75)

    async def test_a_background_request_can_get_the_last_billionth(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, journal=OTHER, minimum=99))

        assert await granted(prepaid, request(1, desired=5)) == ("ok", 1)

    async def test_a_background_request_never_lowers_the_grant(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=40))

        assert await granted(prepaid, request(2, desired=0)) == ("ok", 40)

    async def test_one_process_can_reserve_all_of_it(self, prepaid: Database) -> None:
        assert await granted(prepaid, request(1, minimum=100)) == ("ok", 100)
        assert await granted(prepaid, request(2, spent=100, minimum=1)) == ("no_credit", 100)

    async def test_if_the_minimum_is_not_met_all_unspent_credit_goes_back(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=10))

        assert await granted(prepaid, request(2, spent=4, minimum=200)) == ("no_credit", 4)
        assert await money(prepaid) == (96, 4)

    async def test_credit_that_another_process_reserved_is_reported_as_such(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, journal=OTHER, minimum=60))

        assert await granted(prepaid, request(1, minimum=50)) == ("reserved_elsewhere", 0)
        await granted(prepaid, request(2, journal=OTHER, spent=15))
        assert await granted(prepaid, request(2, minimum=86)) == ("no_credit", 0)
        assert await granted(prepaid, request(3, minimum=85)) == ("reserved_elsewhere", 0)

    async def test_release_gives_back_what_was_not_spent(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=40))

        assert await granted(prepaid, request(2, spent=13, release=True)) == ("ok", 13)
        assert await money(prepaid) == (87, 13)

    async def test_a_repeated_request_changes_nothing(self, prepaid: Database) -> None:
        first = await granted(prepaid, request(3, minimum=5, desired=30))

        again = await granted(prepaid, request(3, minimum=5, desired=30))
        older = await granted(prepaid, request(2, release=True))

        assert first == again == older == ("ok", 30)
        assert await money(prepaid) == (70, 30)

    async def test_more_spent_than_granted_takes_nothing_below_zero(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=10))

        status, _ = await granted(prepaid, request(2, spent=10_000, minimum=1))

        assert status == "no_credit"
        available, held = await money(prepaid)
        assert available >= 0
        assert available + held == 100

    async def test_less_spent_than_was_settled_gives_back_no_more_than_is_left(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        await take(prepaid, [spent(30, 1)])

        assert await granted(prepaid, request(2, spent=0, release=True)) == ("ok", 30)
        assert await money(prepaid) == (70, 0)

    async def test_an_account_without_credit_gets_none(self, prepaid: Database) -> None:
        assert await granted(prepaid, request(1, account=BOB, desired=5)) == ("no_credit", 0)
        assert await granted(prepaid, request(1, account=BOB, minimum=5)) == ("no_credit", 0)

    async def test_a_top_up_takes_effect_at_the_next_request(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, minimum=101))
        await credit(prepaid, 1)

        assert await granted(prepaid, request(2, minimum=101)) == ("ok", 101)

    async def test_requests_in_one_call_are_applied_in_order(self, prepaid: Database) -> None:
        await credit(prepaid, 10, account=BOB)

        terms = await lease(
            prepaid,
            request(1, minimum=60),
            request(1, account=BOB, minimum=10),
            request(1, journal=OTHER, minimum=60),
            request(2, spent=60, release=True),
        )

        assert [each.status for each in terms] == ["ok", "ok", "reserved_elsewhere", "ok"]
        assert await money(prepaid) == (40, 60)
        assert await money(prepaid, account=BOB) == (0, 10)

    async def test_an_account_that_became_postpaid_can_still_release(
        self, prepaid: Database, client: AsyncClient, admin: Headers
    ) -> None:
        await granted(prepaid, request(1, desired=40))
        await assign_plan(client, admin, plan())
        later = NOON + timedelta(days=365)

        (kept,) = await lease(prepaid, request(2, desired=40), now=later)
        (released,) = await lease(prepaid, request(3, release=True), now=later)

        assert (kept.billing, kept.granted, kept.status) == ("postpaid", "0", "ok")
        assert released.granted == "0"
        assert await money(prepaid) == (100, 0)


class TestAtOnce:
    async def test_parallel_leases_never_exceed_the_credit(self, prepaid: Database) -> None:
        requests = [request(1, journal=new_id(), minimum=7) for _ in range(24)]

        answers = await asyncio.gather(*(granted(prepaid, each) for each in requests))

        assert sum(amount for _, amount in answers) == 14 * 7
        assert {status for status, _ in answers} == {"ok", "reserved_elsewhere"}
        assert await money(prepaid) == (2, 98)

    @pytest.mark.costly
    async def test_concurrent_requests_events_and_top_ups_keep_the_balance(
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
            await lease(prepaid, *(request(1, account=who, journal=journal) for who in accounts))
            for turn in range(5):
                done = 2 * turn
                requests = [
                    request(turn + 2, account=account, journal=journal, spent=done, desired=4)
                    for account in reversed(accounts)
                ]
                batch = events[4 * turn : 4 * turn + 4]
                await asyncio.gather(
                    lease(prepaid, *requests),
                    take(prepaid, batch),
                    take(prepaid, batch[::-1]),
                    credit(prepaid, 1),
                )
            await send_report(prepaid, len(events), closed=True, journal=journal)
            await sweep(prepaid, now=NOON, listening_since=NOON)

        await asyncio.gather(*(process(journal) for journal in journals))
        await sweep(prepaid, now=NOON, listening_since=NOON)

        assert await charged(prepaid) == 4 * 10
        assert await money(prepaid) == (100 + 4 * 5 - 40, 0)
        assert await money(prepaid, account=BOB) == (1000 - 40, 0)


class TestSettle:
    async def test_an_event_settles_the_reservation_it_was_spent_from(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))

        await take(prepaid, [spent(20, 1), spent(5, 2)])

        assert await money(prepaid) == (50, 25)
        assert await charged(prepaid) == 25

    async def test_delivered_again_it_settles_nothing(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=50))
        events = [spent(20, 1), spent(5, 2)]

        for batch in (events, events, [*events, *events]):
            await take(prepaid, batch)

        assert await money(prepaid) == (50, 25)

    async def test_what_was_spent_on_a_repeat_goes_back(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=50))

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
        await granted(prepaid, request(1, desired=50))

        result = await take(prepaid, [spent(20, 1, **members), spent(5, 2)])

        assert (result.accepted, len(result.rejected)) == (1, 1)
        assert await money(prepaid) == (70, 25)

    async def test_an_event_rejected_first_and_taken_later_is_paid_by_the_account(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        early = spent(20, 1, time=(NOON + timedelta(hours=1)).isoformat())
        await take(prepaid, [early])

        await take(prepaid, [early], now=NOON + timedelta(hours=1))

        assert await money(prepaid) == (50, 30)
        assert await charged(prepaid) == 20

    async def test_a_second_id_at_a_sequence_is_paid_by_the_account(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))

        await take(prepaid, [spent(20, 1), spent(3, 1)])

        assert await money(prepaid) == (47, 30)
        assert await charged(prepaid) == 23

    async def test_an_event_without_a_reservation_is_paid_by_the_account(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))

        await take(prepaid, [spent(20), spent(7, 1, journal=OTHER)])

        assert await money(prepaid) == (23, 50)

    async def test_an_event_beyond_the_lowest_sum_is_rejected(self, database: Database) -> None:
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
    async def test_it_is_shared_by_demand_among_recent_requesters(
        self, prepaid: Database, client: AsyncClient, admin: Headers, billing: str
    ) -> None:
        await assign_plan(client, admin, self.LIMITED | {"billing": billing})
        now = NOON + timedelta(days=365)

        (alone,) = await lease(prepaid, request(1, demand=0), now=now)
        (second,) = await lease(prepaid, request(1, journal=OTHER, demand=1), now=now)
        (first,) = await lease(prepaid, request(2, demand=9), now=now)
        (again,) = await lease(prepaid, request(2, journal=OTHER, demand=1), now=now)

        assert self.share(alone) == (30, 6)
        assert self.share(second) == (20, 4)
        assert self.share(first) == (25, 5)
        assert self.share(again) == (5, 1)
        later = now + timedelta(seconds=30)
        (left,) = await lease(prepaid, request(3, journal=OTHER, demand=1), now=later)
        assert self.share(left) == (30, 6)


class TestPlans:
    @pytest.mark.any_database
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
        (terms,) = await lease(prepaid, request(1))

        assert [price.price_id for price in terms.prices] == [PRICE_ID]
