"""Journalled events reach billing despite any failure, and are never lost or billed twice."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.inference.metering import events
from services.inference.metering.billing_client import PIECE_VALUES, BillingClient
from services.inference.metering.delivery import MAX_BATCH_LINES
from services.inference.metering.events import with_sequence
from services.inference.metering.journal import segments
from services.inference.metering.journal.journal import Journal
from services.inference.metering.metrics import MeteringMetrics
from services.inference.metering.shipper import Shipper
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours, running


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    """Neighbours that only this test sends usage to."""
    async with running(Neighbours()) as started:
        yield started


class Run:
    """A journal and its shipper."""

    def __init__(
        self,
        folder: Path,
        billing: BillingClient,
        *,
        segment_bytes: int = 5_000,
        **options: float,
    ) -> None:
        self.registry = CollectorRegistry()
        self.journal = Journal(folder, max_bytes=2**24, segment_bytes=segment_bytes)
        metrics = MeteringMetrics(self.registry, self.journal)
        self.shipper = Shipper(self.journal, billing, metrics, **options)

    async def append(self, event_id: str) -> None:
        await self.journal.append(event(event_id, self.journal.id))

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)


def event(event_id: str, journal: str) -> bytes:
    return events.encode(
        event_id=event_id,
        account=str(uuid.uuid4()),
        client_id="c",
        journal=journal,
        model="m",
        version="v",
        rows=1,
        price_id="p",
        input_sha256="0" * 64,
        latency_ms=1.0,
        now=0.0,
    )


def dead_run(folder: Path, journal: str, ids: list[str], *, tail: bytes = b"") -> None:
    """Create the files that a killed run leaves behind."""
    lines = [
        segments.encode_line(with_sequence(event(event_id, journal), number))
        for number, event_id in enumerate(ids, start=1)
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"{journal}-1.log").write_bytes(b"".join(lines) + tail)


async def test_a_clean_stop_ships_everything_and_reports_closed(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    run = Run(tmp_path, billing)
    for number in range(100):
        await run.append(f"e{number}")

    await run.shipper.drain()

    assert [e["id"] for e in neighbours.events] == [f"e{number}" for number in range(100)]
    assert neighbours.sources == {run.journal.id: {"last": 100, "closed": True}}
    assert list(tmp_path.iterdir()) == []
    assert run.metric("tollgate_usage_events_shipped_total") == 100


async def test_a_run_ships_its_own_events_from_memory_and_older_ones_from_the_disk(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    run = Run(tmp_path, billing)
    for number in range(100):
        await run.append(f"e{number}")
    *older, previous, current = run.journal.segments
    for segment in (previous, current):
        os.truncate(segment.path, 0)

    await run.shipper.drain()

    assert older
    assert [e["id"] for e in neighbours.events] == [f"e{number}" for number in range(100)]
    assert run.metric("tollgate_usage_events_rejected_total") == 0


@pytest.mark.parametrize("count", [1, PIECE_VALUES, PIECE_VALUES + 1, MAX_BATCH_LINES + 1])
async def test_a_batch_that_is_sent_in_pieces_arrives_whole(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours, count: int
) -> None:
    run = Run(tmp_path, billing, segment_bytes=2**23)
    await asyncio.gather(*(run.append(f"e{number}") for number in range(count)))

    await run.shipper.drain()

    assert [e["id"] for e in neighbours.events] == [f"e{number}" for number in range(count)]
    assert neighbours.batches == ([MAX_BATCH_LINES, 1] if count > MAX_BATCH_LINES else [count])


async def test_a_steady_stream_of_events_is_shipped_in_batches(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    run = Run(tmp_path, billing, linger_s=0.5)
    running_on = asyncio.create_task(run.shipper.run())

    for number in range(30):
        await run.append(f"e{number}")
        await asyncio.sleep(0.02)
    await eventually(lambda: not run.journal.unshipped_bytes)
    running_on.cancel()
    await asyncio.gather(running_on, return_exceptions=True)
    await run.shipper.drain()

    assert [e["id"] for e in neighbours.events] == [f"e{number}" for number in range(30)]
    assert len(neighbours.batches) <= 15


async def test_while_billing_is_away_events_wait_and_a_stop_leaves_them_for_the_next_run(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.failing = {"/events": 503}
    first = Run(tmp_path, billing, drain_s=0.3)
    await first.append("kept")
    await first.shipper.drain()

    neighbours.failing = {}
    second = Run(tmp_path, billing)
    await second.shipper.take_over_dead_runs()
    await second.shipper.drain()

    assert list(neighbours.charged) == ["kept"]
    assert neighbours.sources[first.journal.id] == {"last": 1, "closed": True}
    assert list(tmp_path.iterdir()) == []


async def test_a_dead_runs_events_keep_its_journal_and_a_torn_tail_is_dropped(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a", "b"], tail=b'0badc0de {"id":"never ans')
    run = Run(tmp_path, billing)

    await run.shipper.take_over_dead_runs()
    await run.shipper.drain()

    assert [(e["id"], e["journal"], int(e["sequence"])) for e in neighbours.events] == [
        ("a", dead, 1),
        ("b", dead, 2),
    ]
    assert neighbours.sources[dead] == {"last": 2, "closed": True}


async def test_a_damaged_line_goes_to_the_dead_letters_and_shipping_continues(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a", "b", "c"])
    path = tmp_path / f"{dead}-1.log"
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"x"'))
    run = Run(tmp_path, billing)

    await run.shipper.take_over_dead_runs()
    await run.shipper.drain()

    assert list(neighbours.charged) == ["a", "c"]
    [letter] = (tmp_path / "dead-letters.ndjson").read_bytes().splitlines()
    assert '"x"' in orjson.loads(letter)["event"]
    assert run.metric("tollgate_usage_events_rejected_total") == 1
    assert neighbours.sources[dead] == {"last": 3, "closed": True}


async def test_rejected_events_go_to_the_dead_letters(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.reject = {"bad"}
    run = Run(tmp_path, billing)
    for event_id in ("good", "bad", "fine"):
        await run.append(event_id)

    await run.shipper.drain()

    assert list(neighbours.charged) == ["good", "fine"]
    [letter] = (tmp_path / "dead-letters.ndjson").read_bytes().splitlines()
    assert orjson.loads(letter)["reason"] == "unwanted"
    assert orjson.loads(orjson.loads(letter)["event"])["id"] == "bad"


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.max_batch = 3
    run = Run(tmp_path, billing)
    for number in range(20):
        await run.append(f"e{number}")

    await run.shipper.drain()

    assert [e["id"] for e in neighbours.events] == [f"e{number}" for number in range(20)]


async def test_after_a_lost_response_events_are_sent_again_as_duplicates(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a", "b"])
    neighbours.charged["a"] = {}
    run = Run(tmp_path, billing)

    await run.shipper.take_over_dead_runs()
    await run.shipper.drain()

    assert run.metric("tollgate_usage_events_duplicates_total") == 1
    assert run.metric("tollgate_usage_events_shipped_total") == 1


async def test_a_revoked_token_is_renewed(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.failing = {"/events": 401}
    run = Run(tmp_path, billing)
    await run.append("a")
    shipping = asyncio.create_task(run.shipper.run())
    await eventually(lambda: neighbours.tokens > 1)
    neighbours.failing = {}

    await eventually(lambda: list(neighbours.charged) == ["a"])

    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    await run.shipper.drain()


@pytest.mark.costly
async def test_a_dead_run_that_billing_will_not_close_does_not_block_others(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a"])
    neighbours.failing = {f"/sources/{dead}": 422}
    run = Run(tmp_path, billing, drain_s=1.0)
    await run.shipper.take_over_dead_runs()
    shipping = asyncio.create_task(run.shipper.run())

    for event_id in ("b", "c"):
        await run.append(event_id)
        await eventually(partial(neighbours.charged.__contains__, event_id))

    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    await run.shipper.drain()
    assert neighbours.sources[run.journal.id] == {"last": 2, "closed": True}
    assert [path.name for path in tmp_path.iterdir()] == [f"{dead}-1.log"]


async def test_a_dead_runs_last_sequence_is_reported_even_if_its_newest_segment_is_empty(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a", "b", "c"])
    (tmp_path / f"{dead}-2.log").touch()
    run = Run(tmp_path, billing)

    await run.shipper.take_over_dead_runs()
    await run.shipper.drain()

    assert neighbours.sources[dead] == {"last": 3, "closed": True}


async def test_a_dead_run_without_events_is_closed_promptly(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, [])
    run = Run(tmp_path, billing)

    shipping = asyncio.create_task(run.shipper.run())
    await eventually(lambda: neighbours.sources.get(dead) == {"last": 0, "closed": True})
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    await run.shipper.drain()

    assert list(tmp_path.iterdir()) == []


async def test_if_a_dead_letter_cannot_be_written_its_event_stays_in_the_journal(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    letters = tmp_path / "dead-letters.ndjson"
    letters.mkdir()  # cannot be written to
    neighbours.reject = {"bad"}
    first = Run(tmp_path, billing, drain_s=0.3)
    await first.append("bad")
    await first.shipper.drain()
    assert not neighbours.sources.get(first.journal.id, {}).get("closed")

    letters.rmdir()
    second = Run(tmp_path, billing)
    await second.shipper.take_over_dead_runs()
    await second.shipper.drain()

    [letter] = letters.read_bytes().splitlines()
    assert orjson.loads(orjson.loads(letter)["event"])["id"] == "bad"


@pytest.mark.costly
async def test_a_damaged_line_becomes_one_dead_letter_however_often_its_batch_is_sent(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    dead = str(uuid.uuid4())
    dead_run(tmp_path, dead, ["a", "b"])
    path = tmp_path / f"{dead}-1.log"
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"x"'))
    neighbours.failing = {"/events": 500}
    run = Run(tmp_path, billing)
    await run.shipper.take_over_dead_runs()
    shipping = asyncio.create_task(run.shipper.run())
    await asyncio.sleep(0.8)
    neighbours.failing = {}

    await eventually(lambda: neighbours.sources.get(dead, {}).get("closed", False))

    assert len((tmp_path / "dead-letters.ndjson").read_bytes().splitlines()) == 1
    shipping.cancel()
    await asyncio.gather(shipping, return_exceptions=True)
    await run.shipper.drain()


async def test_the_age_of_the_oldest_unshipped_event_is_a_metric(
    tmp_path: Path, billing: BillingClient
) -> None:
    name = "tollgate_usage_journal_oldest_unshipped_seconds"
    run = Run(tmp_path, billing)
    nothing_waits = run.metric(name)
    await run.append("from the epoch")
    waits = run.metric(name)

    await run.shipper.drain()

    assert nothing_waits == run.metric(name) == 0
    assert waits is not None
    assert waits > 10**9


async def test_events_that_a_proxy_refuses_stay_in_the_journal(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.failing, neighbours.answered_by_a_proxy = {"/events": 400}, True
    run = Run(tmp_path, billing, drain_s=0.3)
    await run.append("kept")
    await run.shipper.drain()
    assert not (tmp_path / "dead-letters.ndjson").exists()

    neighbours.failing = {}
    later = Run(tmp_path, billing)
    await later.shipper.take_over_dead_runs()
    await later.shipper.drain()

    assert list(neighbours.charged) == ["kept"]
