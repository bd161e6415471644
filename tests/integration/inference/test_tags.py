"""Tags, API key and input digest of a prediction reach the usage event, on every route and path."""

import hashlib
import json
from typing import Any

import grpc
import httpx
import pytest

from tests.integration.inference.conftest import eventually
from tests.integration.inference.fast import V1, V2, Served, connected, one_row, post, warm
from tests.integration.inference.grpc_client import GrpcClient, fp32
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW

TAGS = {"X-Tags": "team=a,project=b"}
TENSOR = {"name": "features", "datatype": "FP64", "shape": [1, 3], "data": NUMBERS_ROW}
ROUTES: dict[str, tuple[str, bytes, str]] = {
    "v1": (V1, one_row(), "application/json"),
    "v2": (V2, json.dumps({"inputs": [TENSOR]}).encode(), "application/json"),
    "CSV": (V1, b"a,b,c\n1,2.5,3\n", "text/csv"),
    "explain": ("/v1/models/price:explain", b'{"instances": [[1, 2]]}', "application/json"),
}


async def charged(neighbours: Neighbours, event_id: str) -> dict[str, Any]:
    """Return the data of a charged event."""

    async def is_charged() -> bool:
        return event_id in neighbours.charged

    await eventually(is_charged)
    data: dict[str, Any] = neighbours.charged[event_id]["data"]
    return data


@pytest.mark.parametrize("route", ROUTES)
async def test_tags_are_in_the_usage_event_of_every_route(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: dict[str, str], route: str
) -> None:
    path, body, media_type = ROUTES[route]
    headers = bearer | TAGS | {"Content-Type": media_type}

    answer = await client.post(path, content=body, headers=headers)

    assert answer.status_code == 200, answer.text
    data = await charged(neighbours, answer.headers["x-usage-event"])
    assert data["tags"] == {"team": "a", "project": "b"}
    assert data["input_sha256"] == hashlib.sha256(body).hexdigest()
    assert "api_key" not in data


@pytest.mark.parametrize("route", ROUTES)
async def test_bad_tags_are_400_on_every_route(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: dict[str, str], route: str
) -> None:
    path, body, media_type = ROUTES[route]
    headers = bearer | {"X-Tags": "team=a b", "Content-Type": media_type}

    answer = await client.post(path, content=body, headers=headers)

    assert answer.status_code == 400
    assert "X-Tags" in answer.text
    assert neighbours.charged == {}


async def test_a_request_without_tags_has_none_in_its_event(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: dict[str, str]
) -> None:
    answer = await client.post(V1, content=one_row(), headers=bearer)

    data = await charged(neighbours, answer.headers["x-usage-event"])
    assert not {"tags", "api_key"} & data.keys()


async def test_the_api_key_is_in_the_usage_event(
    client: httpx.AsyncClient, neighbours: Neighbours, account: str
) -> None:
    key = neighbours.new_key(account=account)

    answer = await client.post(V1, content=one_row(), headers={"X-API-Key": key})

    data = await charged(neighbours, answer.headers["x-usage-event"])
    assert data["api_key"] == data["client_id"] == neighbours.api_keys[key]["client_id"]


async def test_the_fast_path_answers_requests_with_tags(
    served: Served, neighbours: Neighbours, authorization: str
) -> None:
    async with connected(served.fast) as client:
        await warm(client, authorization)
        served.by_app.clear()

        reply = await client.ask(post(V1, one_row(), authorization, "X-Tags: team=a,project=b"))

    assert (reply.status, served.by_app) == (200, [])
    data = await charged(neighbours, reply.headers["x-usage-event"])
    assert data["input_sha256"] == hashlib.sha256(one_row()).hexdigest()
    assert data["tags"] == {"team": "a", "project": "b"}


async def test_a_repeat_with_other_tags_has_the_same_event(
    client: httpx.AsyncClient, bearer: dict[str, str]
) -> None:
    keyed = bearer | {"Idempotency-Key": "k"}

    first = await client.post(V1, content=one_row(), headers=keyed | TAGS)
    second = await client.post(V1, content=one_row(), headers=keyed | {"X-Tags": "team=b"})

    assert first.headers["x-usage-event"] == second.headers["x-usage-event"]


async def test_grpc_takes_tags_as_metadata(
    http_and_grpc: httpx.AsyncClient, caller: GrpcClient, neighbours: Neighbours
) -> None:
    _, receipt = await caller.infer(fp32(NUMBERS_ROW), x_tags="team=a,project=b")
    refused = await caller.refused(fp32(NUMBERS_ROW), x_tags="team")

    data = await charged(neighbours, receipt["x-usage-event"])
    assert data["tags"] == {"team": "a", "project": "b"}
    sent = fp32(NUMBERS_ROW).SerializeToString()
    assert data["input_sha256"] == hashlib.sha256(sent).hexdigest()
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
