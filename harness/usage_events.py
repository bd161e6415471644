"""Usage events as inference sends them, and calls of billing's API."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from httpx import AsyncClient, Response

from services.common.contracts import CLOUDEVENTS_BATCH, EVENT_SOURCE, EVENT_TYPE

ADA = "0198a000-0000-7000-8000-00000000000a"
BOB = "0198a000-0000-7000-8000-00000000000b"
JOURNAL = "0198b000-0000-7000-8000-000000000001"

Json = dict[str, Any]


def event(
    *,
    account: str = ADA,
    model: str = "wine",
    version: str = "20261122t000000z-0a1b2c3d",
    rows: Any = 1,
    time: datetime | str | int | None = None,
    price_id: str | None = None,
    sequence: int | None = None,
    journal: str | None = None,
    **members: Any,
) -> Json:
    """Return a usage event, by default of now; `members` are CloudEvents attributes."""
    moment = time or datetime.now(UTC)
    data = {"model": model, "version": version, "rows": rows}
    document: Json = {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": EVENT_SOURCE,
        "id": str(uuid.uuid4()),
        "subject": account,
        "time": moment.isoformat() if isinstance(moment, datetime) else moment,
        "data": data | ({"price_id": price_id} if price_id else {}),
    }
    if sequence is not None:
        document |= {"journal": journal or JOURNAL, "sequence": f"{sequence:020d}"}
    return document | members


async def deliver(client: AsyncClient, headers: dict[str, str], events: Sequence[Any]) -> Json:
    """Send a batch and expect 202."""
    response = await post_events(client, headers, json.dumps(list(events)).encode())
    assert response.status_code == 202, response.text
    result: Json = response.json()
    return result


async def post_events(
    client: AsyncClient,
    headers: dict[str, str],
    body: bytes,
    media_type: str = CLOUDEVENTS_BATCH,
) -> Response:
    """Send any body to `/events`; return the response."""
    return await client.post(
        "/events", content=body, headers=headers | {"Content-Type": media_type}
    )


async def total(client: AsyncClient, headers: dict[str, str], **query: Any) -> dict[str, Any]:
    """Return the total of an account's usage."""
    response = await client.get("/usage", headers=headers, params=query)
    assert response.status_code == 200, response.text
    usage: dict[str, Any] = response.json()["total"]
    return usage


def used(requests: int, rows: int, amount: str) -> dict[str, Any]:
    """Return a total as billing responds with it."""
    return {"requests": requests, "rows": rows, "amount": amount, "currency": "USD"}


async def assign_plan(client: AsyncClient, admin: dict[str, str], document: dict[str, Any]) -> str:
    """Store a plan and put Ada on it."""
    stored = await client.post("/plans", headers=admin, json=document)
    assert stored.status_code == 201, stored.text
    plan_id: str = stored.json()["id"]
    assigned = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})
    assert assigned.status_code == 200, assigned.text
    return plan_id
