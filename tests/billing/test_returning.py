"""When credit that other processes have reserved is expected back."""

from datetime import timedelta

from httpx import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from services.billing.leases.slices import seconds_until
from services.common.db import Database
from tests.billing.money import NOON, PLAN_ID, ask, granted, lease, tell
from tests.billing.tokens import Headers
from tests.billing.wire import ADA, BOB

OTHER = "0198b000-0000-7000-8000-000000000002"
THIRD = "0198b000-0000-7000-8000-000000000003"


async def wait_s(database: Database, minutes: float, *, at_least: int = 50) -> int | None:
    """In how many seconds credit is expected back, some minutes after noon."""
    now = NOON + timedelta(minutes=minutes)
    asked = ask(int(100 * minutes) + 1, journal=OTHER, at_least=at_least)
    (terms,) = await lease(database, asked, now=now)
    return terms.retry_after


async def test_what_a_live_process_has_reserved_may_come_back_at_any_moment(
    prepaid: Database,
) -> None:
    await granted(prepaid, ask(1, at_least=60))

    assert await wait_s(prepaid, 0.9) == 1


async def test_what_a_silent_one_has_reserved_comes_back_when_it_is_given_up(
    prepaid: Database,
) -> None:
    await granted(prepaid, ask(1, at_least=60))

    assert [await wait_s(prepaid, minutes) for minutes in (1, 5, 9.99)] == [545, 305, 6]
    assert await wait_s(prepaid, 12) == 1  # the next sweep


async def test_what_the_live_ones_have_reserved_counts_first(prepaid: Database) -> None:
    await granted(prepaid, ask(1, at_least=30))
    await granted(prepaid, ask(1, journal=THIRD, at_least=60))
    await tell(prepaid, 0, journal=THIRD, now=NOON + timedelta(minutes=5))

    assert await wait_s(prepaid, 5, at_least=70) == 1
    assert await wait_s(prepaid, 5.1, at_least=71) == 299


async def test_it_is_said_of_nothing_else(
    prepaid: Database, client: AsyncClient, service: Headers, admin: Headers
) -> None:
    await granted(prepaid, ask(1, at_least=60))
    for account in (ADA, BOB):
        body = {"plan": PLAN_ID}
        put = await client.put(f"/accounts/{account}/plan", headers=admin, json=body)
        assert put.status_code == 200
    asks = [
        {"account": ADA, "journal": OTHER, "ask_no": 1, "at_least": "0.00000004"},
        {"account": ADA, "journal": THIRD, "ask_no": 1, "at_least": "0.00000005"},
        {"account": BOB, "journal": OTHER, "ask_no": 1, "at_least": "1"},
    ]

    answer = await client.post("/leases", headers=service, json=asks)

    assert [each.get("retry_after") for each in answer.json()] == [None, 1, None]
    assert [len(each) for each in answer.json()] == [7, 8, 7]


@given(
    st.integers(1, 99),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 605), st.integers(0, 50))),
)
def test_the_wait_is_the_least_after_which_there_is_enough(
    missing: int, available: int, returns: list[tuple[int, int]]
) -> None:
    wait_s = seconds_until(missing, available=available, returns=returns)

    def there_after(seconds: float) -> int:
        return available + sum(amount for after, amount in returns if after <= seconds)

    enough = there_after(float("inf")) >= missing
    assert there_after(wait_s) >= missing or not enough
    assert wait_s == min((after for after, _ in returns), default=1) or (
        there_after(wait_s - 1) < missing
    )
