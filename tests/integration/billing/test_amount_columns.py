"""Amounts in two columns: splitting, adding and summing are exact at any size."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from harness.usage_events import ADA
from services.billing.amounts import columns, differing, exact, join, labelled, split
from services.billing.bulk_insert import upsert
from services.billing.models import Account
from services.common.contracts import MAX_SUM
from services.common.db.database import Database
from tests.integration.billing.money import NOON

amounts = st.integers(-MAX_SUM, MAX_SUM) | st.integers(-(2**66), 2**66) | st.integers(-9, 9)
inside = st.integers(-(2**63) + 1, 2**63 - 1)
ACCOUNT = {"id": ADA, "currency": "USD", "created_at": NOON}


@given(amounts)
def test_split_and_join_are_inverse(amount: int) -> None:
    high, low = split(amount)

    assert join(high, low) == amount
    assert all(-(2**63) < part < 2**63 for part in (high, low))


@given(inside)
def test_an_amount_within_64_bits_is_only_in_its_low_column(amount: int) -> None:
    assert split(amount) == (0, amount)


@given(amounts, amounts)
def test_equal_amounts_have_equal_parts(one: int, other: int) -> None:
    assert (split(one) == split(other)) == (one == other)


class TestInSql:
    async def add_up(self, database: Database, parts: list[tuple[int, int]], more: int) -> int:
        """Return the sum of a stored amount and `more`, as the database adds them."""
        async with database.transaction() as session:
            await session.execute(delete(Account))
            for high, low in parts:
                stored = ACCOUNT | {"available_high": high, "available_low": low}
                await session.execute(insert(Account), [stored])
            await upsert(
                session,
                Account,
                [ACCOUNT | columns("available", more)],
                add_amounts=["available"],
            )
            row = await session.execute(select(Account.available_high, Account.available_low))
            return join(*row.one())

    @pytest.mark.parametrize(
        ("stored", "more"),
        [
            ((0, 5), -7),
            ((0, 2**63 - 1), 1),
            ((0, 2**63 - 1), 2**63 - 1),
            ((0, -(2**63) + 1), -1),
            ((0, -(2**63) + 1), -(2**63) + 1),
            ((0, 2**63 - 1), -(2**63) + 1),
            ((1, 2**63 - 1), 2**64),
            ((1, -(2**63) + 1), -(2**64)),
            ((-1, 1), 2**63),
            ((2**60, 3), MAX_SUM),
        ],
    )
    async def test_two_amounts_are_added_within_64_bits(
        self, database: Database, stored: tuple[int, int], more: int
    ) -> None:
        assert await self.add_up(database, [stored], more) == join(*stored) + more

    @pytest.mark.costly
    async def test_any_two_amounts_are_added(self, database: Database) -> None:
        cases: list[tuple[tuple[int, int], int]] = []

        @settings(max_examples=60, deadline=None, database=None)
        @given(st.tuples(st.integers(-(2**60), 2**60), inside), amounts)
        def draw(stored: tuple[int, int], more: int) -> None:
            cases.append((stored, more))

        draw()

        for stored, more in cases:
            assert await self.add_up(database, [stored], more) == join(*stored) + more

    @pytest.mark.costly
    async def test_any_amounts_are_summed_exactly_and_compared_with_zero(
        self, database: Database
    ) -> None:
        sums: list[list[int]] = []

        @settings(max_examples=40, deadline=None, database=None)
        @given(st.lists(amounts, min_size=1, max_size=8), st.booleans())
        def draw(drawn: list[int], to_nothing: bool) -> None:
            sums.append([*drawn, *(-each for each in drawn)] if to_nothing else drawn)

        draw()

        for drawn in sums:
            assert await self.sum_up(database, drawn) == (sum(drawn), sum(drawn) != 0)

    async def sum_up(self, database: Database, drawn: list[int]) -> tuple[int, bool]:
        """Return the database's sum of amounts, and whether it finds that different from zero."""
        rows = [
            {"id": f"{number:036d}", "currency": "USD", "created_at": NOON}
            | dict(zip(("available_high", "available_low"), split(amount), strict=True))
            for number, amount in enumerate(drawn)
        ]
        stored = exact(Account.available_low, high=Account.available_high)
        async with database.transaction() as session:
            await session.execute(delete(Account))
            await session.execute(insert(Account), rows)
            total = select(*stored.total().named("total")).subquery()
            row = (await session.execute(select(total))).one()
            differs = (await session.execute(differing(total, "total"))).one_or_none()
        whole = labelled(row, "total").value()
        assert differs is None or labelled(differs, "total").value() == whole
        return whole, differs is not None
