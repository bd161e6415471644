"""The stores of archives: folders and buckets, which keep files as they were written."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.billing.archives.errors import ArchiveDamaged, ArchiveUnreachable
from services.billing.archives.models import ArchivePart
from services.billing.archives.store import ArchiveStore

PERIOD = "2026-10"
CONTENT = b"a file"


@pytest.fixture(params=["folder", "file", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return f"{request.getfixturevalue('bucket_url')}/archive"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def part(content: bytes = CONTENT, *, name: str = "a.parquet") -> ArchivePart:
    moment = datetime(2026, 10, 1, tzinfo=UTC)
    return ArchivePart(
        period=PERIOD,
        part=1,
        name=name,
        requests=1,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        first_time=moment,
        last_time=moment,
    )


def test_a_file_is_read_as_it_was_written_or_not_at_all(url: str, tmp_path: Path) -> None:
    store = ArchiveStore(url)

    store.create(PERIOD, "a.parquet", CONTENT)

    assert ArchiveStore(url).fetch(part(), tmp_path).read_bytes() == CONTENT
    with pytest.raises(ArchiveUnreachable, match="the file exists"):
        store.create(PERIOD, "a.parquet", b"other")
    with pytest.raises(ArchiveDamaged, match="file 1 is damaged"):
        store.fetch(part(b"another file"), tmp_path)
    with pytest.raises(ArchiveDamaged, match="file 1 is missing"):
        store.fetch(part(name="b.parquet"), tmp_path)


def test_a_file_in_a_folder_outlives_a_crash_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, set[str]]] = []

    def sync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        if path.is_dir():  # what the folder had when its names were written to disk
            synced.append((path, {each.name for each in path.iterdir()}))

    monkeypatch.setattr(os, "fsync", sync)
    ArchiveStore(str(tmp_path / "new")).create(PERIOD, "a.parquet", CONTENT)

    assert synced == [
        (tmp_path, {"new"}),
        (tmp_path / "new", {"usage"}),
        (tmp_path / "new" / "usage", {PERIOD}),
        (tmp_path / "new" / "usage" / PERIOD, {"a.parquet"}),
    ]


def test_a_bucket_that_is_away_is_not_taken_for_a_missing_file(
    bucket_url: str, tmp_path: Path
) -> None:
    store = ArchiveStore(f"{bucket_url}-gone/archive")

    with pytest.raises(ArchiveUnreachable):
        store.create(PERIOD, "a.parquet", CONTENT)


def test_without_a_place_for_archives_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnreachable, match="BILLING_ARCHIVE"):
        ArchiveStore("none").fetch(part(), tmp_path)
