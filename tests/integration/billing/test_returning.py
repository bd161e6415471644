"""When credit that other processes have reserved is expected back."""

from datetime import timedelta

from httpx import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from harness.issuer import Headers
from harness.usage_events import ADA, BOB
from services.billing.ledger.reservations import seconds_until
from services.common.db.database import Database
from tests.integration.billing.money import NOON, PLAN_ID, granted, lease, request, send_report

OTHER = "0198b000-0000-7000-8000-000000000002"
THIRD = "0198b000-0000-7000-8000-000000000003"


async def wait_s(database: Database, minutes: float, *, minimum: int = 50) -> int | None:
    """Return in how many seconds credit is expected back, some minutes after noon."""
    now = NOON + timedelta(minutes=minutes)
    one = request(int(100 * minutes) + 1, journal=OTHER, minimum=minimum)
    (terms,) = await lease(database, one, now=now)
    return terms.retry_after


async def test_credit_of_a_live_process_may_come_back_at_any_moment(
    prepaid: Database,
) -> None:
    await granted(prepaid, request(1, minimum=60))

    assert await wait_s(prepaid, 0.9) == 1


async def test_credit_of_a_silent_process_comes_back_once_it_is_declared_lost(
    prepaid: Database,
) -> None:
    await granted(prepaid, request(1, minimum=60))

    assert [await wait_s(prepaid, minutes) for minutes in (1, 5, 9.99)] == [545, 305, 6]
    assert await wait_s(prepaid, 12) == 1  # the next sweep


async def test_credit_of_live_processes_counts_first(prepaid: Database) -> None:
    await granted(prepaid, request(1, minimum=30))
    await granted(prepaid, request(1, journal=THIRD, minimum=60))
    await send_report(prepaid, 0, journal=THIRD, now=NOON + timedelta(minutes=5))

    assert await wait_s(prepaid, 5, minimum=70) == 1
    assert await wait_s(prepaid, 5.1, minimum=71) == 299


async def test_no_other_status_has_a_retry_after(
    prepaid: Database, client: AsyncClient, service: Headers, admin: Headers
) -> None:
    await granted(prepaid, request(1, minimum=60))
    for account in (ADA, BOB):
        body = {"plan": PLAN_ID}
        put = await client.put(f"/accounts/{account}/plan", headers=admin, json=body)
        assert put.status_code == 200
    requests = [
        {"account": ADA, "journal": OTHER, "sequence": 1, "minimum": "0.00000004"},
        {"account": ADA, "journal": THIRD, "sequence": 1, "minimum": "0.00000005"},
        {"account": BOB, "journal": OTHER, "sequence": 1, "minimum": "1"},
    ]

    answer = await client.post("/leases", headers=service, json=requests)

    assert [each.get("retry_after") for each in answer.json()] == [None, 1, None]
    assert [len(each) for each in answer.json()] == [7, 8, 7]


@given(
    st.integers(1, 99),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 605), st.integers(0, 50))),
)
def test_the_wait_is_the_shortest_after_which_there_is_enough(
    missing: int, available: int, returns: list[tuple[int, int]]
) -> None:
    wait_s = seconds_until(missing, available=available, returns=returns)

    def available_after(seconds: float) -> int:
        return available + sum(amount for after, amount in returns if after <= seconds)

    enough = available_after(float("inf")) >= missing
    assert available_after(wait_s) >= missing or not enough
    assert wait_s == min((after for after, _ in returns), default=1) or (
        available_after(wait_s - 1) < missing
    )
