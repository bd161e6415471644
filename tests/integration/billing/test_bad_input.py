"""Batches with bad events: a reason for each, and the good ones are kept."""

from typing import Any

import orjson
import pytest
from httpx import AsyncClient

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import BOB, deliver, event, post_events, total

pytestmark = pytest.mark.any_database

BAD: dict[str, dict[str, Any]] = {
    "negative": {"rows": -1},
    "huge": {"rows": 2**31},
    "beyond 64 bits": {"rows": 2**64},
    "a subject that is no UUID": {"subject": "ada"},
    "a sequence of 0": {"sequence": 0},
    "a sequence beyond 64 bits": {"sequence": 2**63},
    "an unknown price": {"price_id": "nobody-knows-it"},
}


async def test_each_bad_event_of_a_batch_gets_its_reason_and_the_good_ones_are_kept(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    bad = [event(**members) for members in BAD.values()]
    good = [event(rows=0), event(rows=2), event(rows=2**31 - 1)]
    mixed = [each for pair in zip(bad, good * 3, strict=False) for each in pair]

    result = await deliver(client, service, mixed)

    refused = {each["id"]: each["reason"] for each in result["rejected"]}
    assert set(refused) == {each["id"] for each in bad}
    assert all(reason.split(":")[0] for reason in refused.values())
    assert (result["accepted"], result["duplicates"]) == (3, len(bad) - 3)
    assert (await total(client, ada))["rows"] == 2**31 + 1


async def test_a_price_in_another_currency_is_rejected(
    client: AsyncClient, service: Headers, ada: Headers, admin: Headers
) -> None:
    await deliver(client, service, [event()])
    stored = await client.post(
        "/plans",
        headers=admin,
        json=plan(price((None, "1", "0"), model="wine"), currency="EUR"),
    )
    listed = (await client.get("/plans", headers=admin)).json()
    [euros] = [each for each in listed["plans"] if each["id"] == stored.json()["id"]]
    await client.put(f"/accounts/{BOB}/plan", headers=admin, json={"plan": euros["id"]})
    asked = {"account": BOB, "journal": BOB, "sequence": 1}
    [terms] = (await client.post("/leases", headers=service, json=[asked])).json()

    result = await deliver(
        client, service, [event(price_id=terms["prices"][0]["price_id"]), event()]
    )

    assert result["accepted"] == 1
    assert [each["reason"] for each in result["rejected"]] == [
        "the price is not in the account's currency"
    ]
    assert (await total(client, ada))["requests"] == 2


async def test_an_empty_batch_is_accepted(client: AsyncClient, service: Headers) -> None:
    result = await deliver(client, service, [])

    assert result == {"accepted": 0, "duplicates": 0, "conflicts": 0, "rejected": []}


async def test_10_001_events_are_refused_as_a_whole(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    answer = await post_events(client, service, orjson.dumps([event()] * 10_001))

    assert answer.status_code == 413
    assert (await total(client, ada))["requests"] == 0


@pytest.mark.parametrize("member", ["comment", "traceparent"])
async def test_an_event_of_64_kib_is_accepted_without_its_unknown_members(
    client: AsyncClient, service: Headers, ada: Headers, member: str
) -> None:
    long = event() | {member: "x" * 65_536}

    result = await deliver(client, service, [long, event()])

    assert result["accepted"] == 2
    assert (await total(client, ada))["requests"] == 2


async def test_64_kib_in_a_known_member_are_rejected_and_not_echoed(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    large = "x" * 65_536
    bad = [event(id=large), event(model=large), event(subject=large)]

    answer = await post_events(client, service, orjson.dumps([*bad, event()]))

    result = answer.json()
    assert (result["accepted"], len(result["rejected"])) == (1, 3)
    assert len(answer.content) < 2_000
    assert (await total(client, ada))["requests"] == 1
