"""Watching the books: each verification's result is a metric."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from harness.waiting import eventually_async
from services.billing.watching import BooksWatch


class Books:
    """Books whose differences are given; None: the database is unavailable."""

    def __init__(self, differences: list[str] | None) -> None:
        self.differences = differences
        self.verified = 0
        self.registry = CollectorRegistry()
        self.watch = BooksWatch(self.verify, every_s=0, registry=self.registry)

    async def verify(self) -> list[str]:
        self.verified += 1
        await asyncio.sleep(0)
        if self.differences is None:
            raise ConnectionRefusedError
        return self.differences

    def metric(self, name: str) -> float:
        return self.registry.get_sample_value(f"tollgate_billing_{name}") or 0

    async def watch_until(self, done: Callable[[], bool]) -> None:
        watching = asyncio.create_task(self.watch.run())
        await eventually_async(done)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_the_latest_result_is_a_metric() -> None:
    books = Books(["one", "two"])

    await books.watch.verify_once()
    assert books.metric("differences") == 2
    assert books.metric("verified_timestamp_seconds") > 0

    books.differences = []
    await books.watch.verify_once()
    assert books.metric("differences") == 0


async def test_a_database_that_is_away_keeps_the_last_result() -> None:
    books = Books(["one"])
    await books.watch.verify_once()

    books.differences = None
    await books.watch.verify_once()

    assert books.metric("differences") == 1
    assert books.metric("verification_failures_total") == 1


async def test_it_verifies_again_and_again() -> None:
    books = Books(None)

    await books.watch_until(lambda: books.verified > 2)

    assert books.metric("verification_failures_total") > 1
