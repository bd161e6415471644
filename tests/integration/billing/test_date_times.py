"""Every date-time is RFC 3339; the end of the calendar is not an error."""

from typing import Any

import pytest
from httpx import AsyncClient

from harness.issuer import Headers
from harness.plans import plan
from harness.usage_events import ADA, assign_plan, deliver, event
from services.common.times import EXPECTED
from tests.unit.common.test_times import NOT_RFC_3339

LAST = "9998-12-31T23:59:59.999999Z"
BEYOND = "9999-12-31T23:59:59-23:59"
TEXTS = [value for value in NOT_RFC_3339 if isinstance(value, str) and value]


@pytest.mark.parametrize("path", ["/usage", "/usage/events"])
@pytest.mark.parametrize("name", ["from", "to"])
async def test_a_query_accepts_nothing_else(
    client: AsyncClient, ada: Headers, path: str, name: str
) -> None:
    for value in TEXTS:
        answer = await client.get(path, headers=ada, params={name: value})

        assert (value, answer.status_code) == (value, 422)
        assert answer.json()["errors"] == [{"loc": ["query", name], "msg": EXPECTED}]


@pytest.mark.parametrize("path", ["/usage", "/usage/events"])
async def test_a_window_may_end_at_the_end_of_the_calendar(
    client: AsyncClient, service: Headers, ada: Headers, path: str
) -> None:
    await deliver(client, service, [event()])

    for window in ({"to": LAST}, {"from": LAST, "to": LAST}, {"to": "9998-12-31T23:59:59+14:00"}):
        answer = await client.get(path, headers=ada, params=window)
        assert (window, answer.status_code) == (window, 200)
    for group_by in ("hour", "day", "month", "model"):
        window = {"to": LAST, "group_by": group_by}
        found = await client.get("/usage", headers=ada, params=window)
        assert found.json()["total"]["requests"] == 1
    beyond = await client.get(path, headers=ada, params={"to": BEYOND})
    assert beyond.status_code == 422


async def test_a_plan_accepts_nothing_else(client: AsyncClient, admin: Headers) -> None:
    plan_id = await assign_plan(client, admin, plan())

    for value in [*NOT_RFC_3339, BEYOND]:
        body: dict[str, Any] = {"plan": plan_id, "effective_from": value}
        answer = await client.put(f"/accounts/{ADA}/plan", headers=admin, json=body)
        expected = 200 if value is None else 422  # without one, from now
        assert (value, answer.status_code) == (value, expected)


async def test_a_plan_may_begin_at_the_end_of_the_calendar(
    client: AsyncClient, service: Headers, admin: Headers, ada: Headers
) -> None:
    plan_id = await assign_plan(client, admin, plan())

    answer = await client.put(
        f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id, "effective_from": LAST}
    )

    assert (answer.status_code, answer.json()["effective_from"]) == (200, LAST)
    assert (await deliver(client, service, [event()]))["accepted"] == 1


async def test_an_event_accepts_nothing_else(client: AsyncClient, service: Headers) -> None:
    values = [value for value in NOT_RFC_3339 if value]

    result = await deliver(
        client, service, [event() | {"time": value} for value in [*values, LAST, BEYOND]]
    )

    reasons = [each["reason"] for each in result["rejected"]]
    assert reasons[: len(values)] == [f"time: {EXPECTED}"] * len(values)
    assert len(reasons) == len(values) + 2
