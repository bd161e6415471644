"""Predictions on the fast path: limits, credit and durability hold there too."""

from harness.waiting import eventually_async as eventually
from tests.integration.inference.fast import (
    V1,
    Served,
    connected,
    number_charged,
    one_row,
    post,
    warm,
)
from tests.integration.inference.neighbours import Neighbours


class TestMoney:
    async def test_a_rate_limit_holds(
        self, served: Served, authorization: str, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.001, "burst": 4}

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, one_row(), authorization)) for _ in range(7)]

        assert [reply.status for reply in replies] == [200] * 4 + [429] * 3
        assert "retry-after" in replies[-1].headers
        left = [reply.headers["ratelimit"].partition(";t=")[0] for reply in replies]
        assert left == [f'"default";r={number}' for number in (3, 2, 1, 0, 0, 0, 0)]

    async def test_credit_is_spent_to_the_end_and_no_further(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        neighbours.wallets.top_up(account, "0.006")

        async with connected(served.fast) as client:
            replies = [await client.ask(post(V1, one_row(), authorization)) for _ in range(15)]

        assert [reply.status for reply in replies] == [200] * 10 + [402] * 5
        await eventually(lambda: number_charged(neighbours, account, 10))

    async def test_a_repeat_with_its_key_is_billed_once(
        self, served: Served, authorization: str, account: str, neighbours: Neighbours
    ) -> None:
        request = post(V1, one_row(), authorization, "Idempotency-Key: again")

        async with connected(served.fast) as client:
            await warm(client, authorization)
            replies = [await client.ask(request) for _ in range(3)]

        assert len({reply.headers["x-usage-event"] for reply in replies}) == 1
        await eventually(lambda: number_charged(neighbours, account, 2))


async def test_durable_answers_follow_the_sync_in_order(
    synced: Served, authorization: str, account: str, neighbours: Neighbours
) -> None:
    request = post(V1, one_row(), authorization)

    async with connected(synced.fast) as client:
        await warm(client, authorization)
        synced.by_app.clear()
        single = [await client.ask(request) for _ in range(3)]
        passed_on = list(synced.by_app)
        client.writer.write(request * 4)
        burst = [await client.read() for _ in range(4)]

    assert [reply.status for reply in (*single, *burst)] == [200] * 7
    assert passed_on == []
    await eventually(lambda: number_charged(neighbours, account, 8))
