"""An event is durable, once and in order, before `append` returns."""

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import orjson
import pytest

from services.inference.metering.journal import segments
from services.inference.metering.journal.journal import (
    TAILS,
    TYPICAL_LINE_BYTES,
    Journal,
    JournalBroken,
    JournalFull,
)


def _events(folder: Path) -> list[dict[str, object]]:
    """Return all events in a folder's segments, in order."""
    found = []
    for path in sorted(folder.glob("*.log"), key=lambda p: int(p.stem.rsplit("-", 1)[1])):
        for line in path.read_bytes().splitlines():
            event = segments.decode_line(line)
            assert event is not None
            found.append(orjson.loads(event))
    return found


@pytest.fixture(params=["process", "disk"])
async def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    sync: Literal["process", "disk"] = request.param
    return Journal(tmp_path, max_bytes=2**20, sync=sync, segment_bytes=2_000)


async def test_an_appended_event_is_on_disk_with_its_sequence(
    journal: Journal, tmp_path: Path
) -> None:
    await journal.append(b'{"id":"a"}')

    assert _events(tmp_path) == [{"sequence": "00000000000000000001", "id": "a"}]
    assert journal.last == 1
    await journal.close(settled=True)


async def test_concurrent_events_are_numbered_without_gaps_across_segments(
    journal: Journal, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(300):
            tasks.create_task(journal.append(b'{"id":"%d"}' % number))

    events = _events(tmp_path)
    assert [int(str(event["sequence"])) for event in events] == list(range(1, 301))
    assert {event["id"] for event in events} == {str(number) for number in range(300)}
    await journal.append(b'{"id":"next"}')
    assert len(list(tmp_path.glob("*.log"))) > 1
    assert journal.last == 301
    await journal.close(settled=False)


async def test_only_the_newest_segments_are_also_in_memory(
    journal: Journal, tmp_path: Path
) -> None:
    for number in range(300):
        await journal.append(b'{"id":"%d"}' % number)

    in_memory = [segment.is_in_memory for segment in journal.segments]

    assert len(in_memory) > TAILS
    assert in_memory == [False] * (len(in_memory) - TAILS) + [True] * TAILS
    await journal.close(settled=False)


async def test_a_settled_journal_leaves_no_files(journal: Journal, tmp_path: Path) -> None:
    await journal.append(b"{}")

    await journal.close(settled=True)

    assert list(tmp_path.iterdir()) == []


async def test_no_work_is_accepted_once_the_limit_is_near(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=4 * TYPICAL_LINE_BYTES)
    journal.check_room(in_flight=3)

    with pytest.raises(JournalFull):
        journal.check_room(in_flight=4)
    await journal.append(b'{"x":"%s"}' % (b"x" * 4 * TYPICAL_LINE_BYTES))
    with pytest.raises(JournalFull):
        journal.check_room(in_flight=0)
    journal.segments[0].shipped = journal.segments[0].size
    journal.check_room(in_flight=0)

    await journal.close(settled=True)


async def test_events_that_wait_for_a_sync_take_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=4 * TYPICAL_LINE_BYTES, sync="disk")

    for _ in range(4):
        journal.append_later([b"{}"], lambda error: None)

    with pytest.raises(JournalFull):
        journal.check_room(in_flight=0)
    await asyncio.sleep(0)  # now they are written, and the sync has begun
    with pytest.raises(JournalFull):
        journal.check_room(in_flight=0)
    await journal.close(settled=False)
    journal.check_room(in_flight=0)


async def test_an_event_cancelled_before_it_is_written_is_not_journalled(
    journal: Journal, tmp_path: Path
) -> None:
    kept = asyncio.create_task(journal.append(b'{"id":"kept"}'))
    gone = asyncio.create_task(journal.append(b'{"id":"gone"}'))
    await asyncio.sleep(0)
    gone.cancel()

    outcomes = await asyncio.gather(kept, gone, return_exceptions=True)
    await journal.append(b'{"id":"next"}')

    cancelled = isinstance(outcomes[1], asyncio.CancelledError)
    ids = [event["id"] for event in _events(tmp_path)]
    assert ids == (["kept", "next"] if cancelled else ["kept", "gone", "next"])
    await journal.close(settled=True)


async def test_at_any_moment_of_cancellation_only_journalled_requests_are_answered(
    journal: Journal, tmp_path: Path
) -> None:
    answered = []
    for number in range(60):
        tasks = [
            asyncio.create_task(journal.append(b'{"id":"%d-%d"}' % (number, n))) for n in range(3)
        ]
        for _ in range(number % 6):
            await asyncio.sleep(0)
        if number >= 30:
            await asyncio.sleep(number / 100_000)
        tasks[0].cancel()
        tasks[2].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        answered += [f"{number}-{n}" for n, outcome in enumerate(outcomes) if outcome is None]

    assert sorted(str(event["id"]) for event in _events(tmp_path)) == sorted(answered)
    assert journal.last == len(answered)
    await journal.close(settled=True)


@contextmanager
def small_files() -> Iterator[None]:
    """Simulate a full disk inside the block: no file of this process may exceed 1,000 bytes.

    A fixture would still be in force while pytest reports the test, perhaps to a larger file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_events_are_refused_while_the_disk_is_full_and_accepted_afterwards(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path, max_bytes=2**20)
    await journal.append(b'{"id":"first"}')

    with small_files():
        with pytest.raises(JournalBroken):
            await journal.append(b'{"id":"%s"}' % (b"x" * 2_000))
        with pytest.raises(JournalBroken):
            journal.check_room(in_flight=0)  # refused for a moment, before any work
        await journal.append(b'{"id":"second"}')

    assert [(e["id"], e["sequence"]) for e in _events(tmp_path)] == [
        ("first", "00000000000000000001"),
        ("second", "00000000000000000002"),
    ]
    assert await journal.check() is None
    await journal.close(settled=True)


async def test_after_a_failed_sync_no_more_events_are_accepted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=2**20, sync="disk")
    await journal.append(b'{"id":"durable"}')
    read_end, write_end = os.pipe()  # a pipe supports neither pwrite nor fsync
    os.dup2(write_end, journal.segments[-1].fd)

    with pytest.raises(JournalBroken):
        await journal.append(b'{"id":"lost"}')

    with pytest.raises(JournalBroken):
        journal.check_room(in_flight=0)
    assert await journal.check() is not None
    assert [e["id"] for e in _events(tmp_path)] == ["durable"]
    os.close(read_end)
    os.close(write_end)
    await journal.close(settled=False)


async def test_an_event_whose_answer_fails_keeps_no_other_from_being_answered(
    journal: Journal,
) -> None:
    def fail(error: JournalBroken | None) -> None:
        raise ZeroDivisionError

    journal.append_later([b'{"id":"a"}'], fail)
    async with asyncio.timeout(20):
        await journal.append(b'{"id":"b"}')
        await journal.append(b'{"id":"c"}')

    assert journal.last == 3
    await journal.close(settled=True)
