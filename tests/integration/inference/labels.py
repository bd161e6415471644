"""Predictions whose true outcomes a test reports."""

from typing import Any

import httpx

Bearer = dict[str, str]


async def predict(
    client: httpx.AsyncClient, bearer: Bearer, *rows: Any, model: str = "numbers"
) -> httpx.Response:
    answer = await client.post(
        f"/v1/models/{model}:predict", json={"instances": list(rows)}, headers=bearer
    )
    assert answer.status_code == 200
    return answer


async def send_feedback(
    client: httpx.AsyncClient, bearer: Bearer, event: str, label: Any, *, model: str = "numbers"
) -> httpx.Response:
    return await client.post(
        f"/v1/models/{model}:feedback",
        json={"usage_event": event, "label": label},
        headers=bearer,
    )


def event_of(answer: httpx.Response) -> str:
    return answer.headers["x-usage-event"]
