"""Segments survive a crash at any byte, and only those of dead runs are claimed."""

import os
import subprocess
import sys
import zlib
from pathlib import Path
from random import Random

import pytest

from services.inference.metering.journal import segments
from services.inference.metering.journal.tail import Tail

JOURNAL = "00000000-0000-4000-8000-000000000001"


def _written(folder: Path, events: list[bytes], *, first: int = 1) -> segments.Segment:
    segment = segments.create(folder, JOURNAL, first)
    data = b"".join(map(segments.encode_line, events))
    segment.write(data)
    segment.grow(data, lines=len(events))
    return segment


def test_a_line_is_its_crc_a_space_the_event_and_a_newline() -> None:
    line = segments.encode_line(b'{"a":1}')

    assert line == b'%08x {"a":1}\n' % zlib.crc32(b'{"a":1}')
    assert segments.decode_line(line[:-1]) == b'{"a":1}'


@pytest.mark.parametrize("at", range(15))
def test_any_changed_byte_is_detected(at: int) -> None:
    line = bytearray(segments.encode_line(b'{"a":1}')[:-1])
    line[at] ^= 0x01

    assert segments.decode_line(bytes(line)) is None


def test_a_live_writers_segment_is_left_alone(tmp_path: Path) -> None:
    segment = _written(tmp_path, [b"{}"])

    assert segments.claim_dead(tmp_path) == []

    segment.release()


def test_a_dead_writers_segments_are_claimed_in_order(tmp_path: Path) -> None:
    for first in (3, 1, 21):
        _written(tmp_path, [b'{"n":%d}' % first] * 2, first=first).release()

    [run] = segments.claim_dead(tmp_path)

    assert [segment.first for segment in run] == [1, 3, 21]
    assert run[-1].last == 22


def test_a_run_with_one_locked_segment_is_left_alone(tmp_path: Path) -> None:
    _written(tmp_path, [b"{}"], first=1).release()
    alive = _written(tmp_path, [b"{}"], first=2)

    assert segments.claim_dead(tmp_path) == []

    alive.release()
    assert len(segments.claim_dead(tmp_path)[0]) == 2


@pytest.mark.parametrize("kept", range(1, 24))
def test_a_tail_torn_at_any_byte_is_cut_to_whole_lines(tmp_path: Path, kept: int) -> None:
    whole = segments.encode_line(b'{"n":1}')
    (tmp_path / f"{JOURNAL}-1.log").write_bytes((whole + whole)[:kept])

    [[segment]] = segments.claim_dead(tmp_path)

    lines = segment.read(max_lines=10, max_bytes=1000)
    assert lines == [whole[:-1]] * (kept // len(whole))
    assert segment.last == segment.lines == kept // len(whole)
    assert segment.path.stat().st_size == segment.size


def test_an_empty_segment_still_shows_how_far_its_run_got(tmp_path: Path) -> None:
    _written(tmp_path, [], first=41).release()

    [[segment]] = segments.claim_dead(tmp_path)

    assert segment.last == 40


def test_a_segment_that_was_never_renamed_is_removed(tmp_path: Path) -> None:
    path = tmp_path / f"{JOURNAL}-1.new"
    path.touch()
    os.utime(path, (0, 0))

    assert segments.claim_dead(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_released_even_when_the_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal, pathlib\n"
        "from services.inference.metering.journal import segments\n"
        f"segments.create(pathlib.Path(sys.argv[1]), '{JOURNAL}', 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)

    assert len(segments.claim_dead(tmp_path)) == 1


def test_what_is_not_durable_is_not_read(tmp_path: Path) -> None:
    segment = _written(tmp_path, [b'{"n":1}'])
    segment.write(segments.encode_line(b'{"n":2}'))

    assert len(segment.read(max_lines=10, max_bytes=1000)) == 1

    segment.cut()
    assert segment.path.stat().st_size == segment.size
    segment.release()


def test_a_line_longer_than_a_batch_is_read_whole(tmp_path: Path) -> None:
    segment = _written(tmp_path, [b"[%s]" % (b"1" * 500), b"{}"])

    assert [len(line) for line in segment.read(max_lines=1, max_bytes=16)] == [511]

    segment.release()


def test_what_this_process_wrote_is_read_from_memory(tmp_path: Path) -> None:
    segment = _written(tmp_path, [b'{"n":1}', b'{"n":2}'])
    os.truncate(segment.path, 0)

    lines = segment.read(max_lines=10, max_bytes=1_000)

    assert segment.is_in_memory
    assert list(map(segments.event_in, lines)) == [b'{"n":1}', b'{"n":2}']
    segment.release()


@pytest.mark.parametrize("seed", range(20))
def test_every_event_is_read_once_and_in_order_however_much_is_in_memory(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    segment = segments.create(tmp_path, JOURNAL, 1)
    segment.tail = Tail(max_bytes=random.randrange(2_000))
    written = 0
    read: list[bytes | None] = []

    while len(read) < 300:
        for _ in range(random.randrange(5)):
            batch = [b"[%d]" % n for n in range(written, written + random.randrange(1, 9))]
            data = b"".join(map(segments.encode_line, batch))
            segment.write(data)
            segment.grow(data, lines=len(batch))
            written += len(batch)
        lines = segment.read(max_lines=random.randrange(1, 20), max_bytes=random.randrange(1, 300))
        read += map(segments.decode_line, lines)
        segment.acknowledge(sum(len(line) + 1 for line in lines))

    assert read == [b"[%d]" % n for n in range(len(read))]
    segment.release()


def test_a_full_disk_leaves_only_whole_lines(tmp_path: Path) -> None:
    segment = _written(tmp_path, [b'{"n":1}'])
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, segment.fd)
    os.close(full)

    with pytest.raises((OSError, segments.Damaged)):
        segment.write(segments.encode_line(b'{"n":2}'))

    assert (segment.lines, segment.last) == (1, 1)
    segment.release()


def test_a_run_that_cannot_be_read_does_not_block_others(tmp_path: Path) -> None:
    other = JOURNAL.replace("1", "2")
    (tmp_path / f"{JOURNAL}-1.log").mkdir()
    (tmp_path / f"{other}-1.log").write_bytes(segments.encode_line(b"{}"))

    [[segment]] = segments.claim_dead(tmp_path)

    assert segment.journal == other
    segment.release()


def test_a_segment_truncated_by_another_process_is_an_error_not_an_endless_loop(
    tmp_path: Path,
) -> None:
    _written(tmp_path, [b'{"n":1}']).release()
    [[segment]] = segments.claim_dead(tmp_path)
    os.truncate(segment.path, 5)

    with pytest.raises(OSError, match="truncated"):
        segment.read(max_lines=10, max_bytes=1_000)

    segment.release()


def test_a_file_with_an_invalid_sequence_is_ignored(tmp_path: Path) -> None:
    (tmp_path / f"{JOURNAL}-{'9' * 30}.log").touch()

    assert segments.claim_dead(tmp_path) == []


def test_the_number_of_dead_runs_opened_at_once_is_limited(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"00000000-0000-4000-8000-{number:012d}-1.log"
        path.write_bytes(segments.encode_line(b"{}"))

    assert len(segments.claim_dead(tmp_path, at_most=2)) == 2
