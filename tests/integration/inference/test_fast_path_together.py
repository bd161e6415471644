"""Requests of several connections that the fast path answers in one turn of the event loop."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from harness.waiting import eventually_async as eventually
from registry.runtimes.runtime import Runtime
from services.inference.api.fast_path import MAX_OFFERS
from tests.integration.inference.fast import (
    V1,
    V2,
    Client,
    Reply,
    Served,
    all_charged,
    connected,
    number_charged,
    one_row,
    post,
    warm,
)
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW


@pytest.fixture
async def clients(served: Served, authorization: str) -> AsyncIterator[list[Client]]:
    """Yield connections of one account, after the app has learned its token and terms."""
    async with connecting(served, 5) as clients:
        await warm(clients[0], authorization)
        served.by_app.clear()
        yield clients


@asynccontextmanager
async def connecting(served: Served, number: int) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        port = served.fast
        yield [await stack.enter_async_context(connected(port)) for _ in range(number)]


async def ask_together(clients: Sequence[Client], requests: Sequence[bytes]) -> list[Reply]:
    """Send a request on each connection before the server's loop can read any of them."""
    for client, request in zip(clients, requests, strict=True):
        client.writer.write(request)
    return list(await asyncio.gather(*(client.read() for client in clients)))


def row(*values: float) -> bytes:
    return json.dumps({"instances": [list(values)]}).encode()


class TestRequestsOfOneTurn:
    async def test_share_one_run_of_the_model_and_one_write(
        self, clients: list[Client], authorization: str
    ) -> None:
        requests = [post(V1, one_row(), authorization)] * len(clients)
        run, write = Runtime.run, os.pwrite

        with (
            patch.object(Runtime, "run", autospec=True, side_effect=run) as runs,
            patch.object(os, "pwrite", side_effect=write) as writes,
        ):
            replies = await ask_together(clients, requests)

        assert [reply.status for reply in replies] == [200] * len(clients)
        assert (runs.call_count, writes.call_count) == (1, 1)

    async def test_each_get_their_own_answer(
        self, served: Served, clients: list[Client], authorization: str
    ) -> None:
        bodies = [
            row(9, 9, 0),
            row(-9, -9, 0),
            json.dumps({"instances": [[9, 9, 0], [-9, -9, 0], [9, 9, 0]]}).encode(),
            one_row(parameters={"probabilities": True}),
            row(-9, -9, 1),
        ]
        requests = [post(V1, body, authorization) for body in bodies]

        together = await ask_together(clients, requests)
        async with connected(served.ordinary) as client:
            alone = [await client.ask(request) for request in requests]

        assert [reply.lasting for reply in together] == [reply.lasting for reply in alone]
        assert len({reply.headers["x-usage-event"] for reply in together}) == len(requests)

    async def test_are_billed_to_their_own_accounts(
        self, served: Served, clients: list[Client], neighbours: Neighbours
    ) -> None:
        accounts = [f"01a21a4f-afef-73fb-ba2f-8da743e6ee8{number}" for number in range(5)]
        bearers = [f"Authorization: Bearer {neighbours.token(account=each)}" for each in accounts]
        for client, bearer in zip(clients, bearers, strict=True):
            await warm(client, bearer)
        served.by_app.clear()

        replies = await ask_together(clients, [post(V1, one_row(), each) for each in bearers])

        assert served.by_app == []
        for account, reply in zip(accounts, replies, strict=True):
            ids = {reply.headers["x-usage-event"]}
            await eventually(partial(all_charged, neighbours, account, ids))
            assert len(neighbours.charged_to(account)) == 2

    async def test_of_both_protocols_are_answered(
        self, served: Served, clients: list[Client], authorization: str
    ) -> None:
        tensor = {"name": "features", "shape": [1, 3], "datatype": "FP32", "data": NUMBERS_ROW}
        v2 = post(V2, json.dumps({"inputs": [tensor]}).encode(), authorization)
        v1 = post(V1, one_row(), authorization)

        replies = await ask_together(clients, [v1, v2, v1, v2, v1])

        predicted = [json.loads(reply.body) for reply in replies]
        assert [reply.status for reply in replies] == [200] * 5
        assert predicted[0]["predictions"] == predicted[1]["outputs"][0]["data"]
        assert served.by_app == []

    async def test_may_be_more_than_are_answered_at_once(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        async with connecting(served, MAX_OFFERS + 9) as clients:
            await warm(clients[0], authorization)
            for _ in range(2):
                request = post(V1, one_row(), authorization)
                replies = await ask_together(clients, [request] * len(clients))

        assert {reply.status for reply in replies} == {200}
        await eventually(lambda: number_charged(neighbours, account, 1 + 2 * len(clients)))


class TestTroubleOfOneRequest:
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"{", 422),
            (row(1, 2), 422),
            (json.dumps({"instances": []}).encode(), 422),
            (row(3e38, 3e38, 3e38), 200),
        ],
        ids=["not JSON", "a column missing", "no rows", "extreme values"],
    )
    async def test_does_not_change_the_answers_of_the_others(
        self,
        clients: list[Client],
        authorization: str,
        account: str,
        neighbours: Neighbours,
        body: bytes,
        status: int,
    ) -> None:
        good = post(V1, one_row(), authorization)
        requests = [good, good, post(V1, body, authorization), good, good]

        replies = await ask_together(clients, requests)

        statuses = [reply.status for reply in replies]
        assert statuses == [200, 200, statuses[2], 200, 200]
        assert statuses[2] in {status, 422}
        assert len({reply.body for reply in (*replies[:2], *replies[3:])}) == 1
        await eventually(lambda: number_charged(neighbours, account, 1 + statuses.count(200)))

    async def test_with_its_token_is_refused_alone(
        self, clients: list[Client], authorization: str, neighbours: Neighbours
    ) -> None:
        other = f"Authorization: Bearer {neighbours.token(scope='usage:read')}"
        bearers = [authorization, other, authorization, f"{other}x", authorization]

        replies = await ask_together(clients, [post(V1, one_row(), each) for each in bearers])

        assert [reply.status for reply in replies] == [200, 403, 200, 401, 200]

    async def test_credit_for_three_of_five_serves_three(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.0024")  # four requests of one row

        async with connecting(served, 5) as clients:
            await warm(clients[0], authorization)
            replies = await ask_together(clients, [post(V1, one_row(), authorization)] * 5)

        assert sorted(reply.status for reply in replies) == [200] * 3 + [402] * 2
        await eventually(lambda: number_charged(neighbours, account, 4))

    async def test_whose_client_has_gone_is_not_billed(
        self,
        served: Served,
        clients: list[Client],
        authorization: str,
        account: str,
        neighbours: Neighbours,
    ) -> None:
        request = post(V1, one_row(), authorization)
        gone, other = (_server_side(served, client) for client in clients[:2])

        gone.data_received(request)
        other.data_received(request)
        gone.connection_lost(None)
        replies = [await clients[1].read(), await clients[2].ask(request)]

        assert [reply.status for reply in replies] == [200, 200]
        await eventually(lambda: number_charged(neighbours, account, 3))

    @pytest.mark.costly
    async def test_and_a_failed_write_bill_nobody(
        self,
        clients: list[Client],
        authorization: str,
        account: str,
        neighbours: Neighbours,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError("no space left")

        request = post(V1, one_row(), authorization)
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwrite", fail)
            replies = await ask_together(clients, [request] * 5)
        await eventually(lambda: _is_answered(clients[0], request))

        assert [reply.status for reply in replies] == [503] * 5
        await eventually(lambda: number_charged(neighbours, account, 2))


def _server_side(served: Served, client: Client) -> Any:
    """Return the server's end of a client's connection."""
    name = client.writer.get_extra_info("sockname")
    connections = served.server.server_state.connections
    [found] = [each for each in connections if each.transport.get_extra_info("peername") == name]
    return found


async def _is_answered(client: Client, request: bytes) -> bool:
    return (await client.ask(request)).status == 200


async def test_pipelined_requests_beside_others_are_answered_in_order(
    clients: list[Client], authorization: str
) -> None:
    up, down = post(V1, row(9, 9, 0), authorization), post(V1, row(-9, -9, 0), authorization)

    clients[0].writer.write(up + down + up)
    clients[1].writer.write(down)
    pipelined = [json.loads((await clients[0].read()).body) for _ in range(3)]
    other = json.loads((await clients[1].read()).body)

    assert pipelined == [pipelined[0], other, pipelined[0]]
    assert pipelined[0] != other


@pytest.mark.parametrize("durability", ["process", "disk"])
async def test_a_request_before_a_malformed_one_is_answered_first(
    served: Served, synced: Served, authorization: str, durability: str
) -> None:
    server = served if durability == "process" else synced
    request = post(V1, one_row(), authorization)

    async with connecting(server, 2) as clients:
        await warm(clients[0], authorization)
        for client in clients:
            client.writer.write(request + b"nonsense\r\n\r\n")
        rest = [await client.reader.read() for client in clients]

    assert [each.startswith(b"HTTP/1.1 200") for each in rest] == [True, True]
    assert [each.count(b"x-usage-event") for each in rest] == [1, 1]


@pytest.mark.costly
async def test_synced_answers_come_once_each_and_let_the_next_request_wait(
    synced: Served, authorization: str, account: str, neighbours: Neighbours
) -> None:
    up, down = post(V1, row(9, 9, 0), authorization), post(V1, row(-9, -9, 0), authorization)

    async with connecting(synced, 4) as clients:
        await warm(clients[0], authorization)
        for _ in range(3):
            for client in clients:
                client.writer.write(up)
            await asyncio.sleep(0)
            for client in clients:
                client.writer.write(down)
            replies = [[await client.read(), await client.read()] for client in clients]

            bodies = {(first.body, second.body) for first, second in replies}
            assert len(bodies) == 1
            assert len(next(iter(bodies))) == 2

    await eventually(lambda: number_charged(neighbours, account, 1 + 3 * 8))
