"""`tollgate pipelines status`: how far each drop has come, and what it waits for."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.pipelines.progress import TRAINING, DropRecords, Known, judge_drop
from harness.gcs import Emulator
from harness.http_servers import Response, serving
from harness.stores import FIRST, SECOND, SignedStore, new_signed_store, release
from registry.records import DataObject, RunRecord
from registry.releases import ReleaseManager
from registry.storage.filesystems import open_filesystem

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DROP = "data/wine/part.csv#7"
RELEASED = {1: release(1, FIRST, "0" * 64), 2: release(2, SECOND, "0" * 64)}


def known(**changes: Any) -> Known:
    fields: dict[str, Any] = {
        "model": "wine",
        "now": NOW,
        "runs": {},
        "releases": {},
        "served": None,
        "report_link": "gs://models/wine/versions/{version}/report.html",
        "runs_link": None,
    }
    return Known(**(fields | changes))


def dropped(ago: timedelta, **changes: Any) -> DropRecords:
    return replace(DropRecords(DROP, NOW - ago), **changes)


def run_of(**changes: Any) -> dict[str, RunRecord]:
    fields: dict[str, Any] = {"version": SECOND, "key": DROP, "time": NOW, "gate": "passed"}
    return {DROP: RunRecord.model_validate(fields | changes)}


HOUR = timedelta(hours=1)
DISPATCHED = dropped(HOUR, dispatched=NOW - HOUR)


@pytest.mark.parametrize(
    ("records", "about", "last", "waits", "is_stopped"),
    [
        (dropped(timedelta(seconds=9)), {}, "seen", "is still open", False),
        (dropped(HOUR), {}, "seen", "Not dispatched yet", False),
        (dropped(30 * HOUR), {}, "seen", "run: tollgate pipelines sweep", True),
        (dropped(200 * HOUR), {}, "seen", "too old for a sweep", True),
        (dropped(HOUR, is_misnamed=True), {}, "seen", "name is unsupported", True),
        (dropped(HOUR, part_of="data/wine/b.csv#8"), {}, "seen", "drop data/wine/b.csv#8", True),
        (dropped(HOUR, dead="GitHub answered 403."), {}, "seen", "Given up: GitHub", True),
        (DISPATCHED, {}, "dispatched", "no outcome yet", False),
        (
            dropped(HOUR, dispatched=NOW - TRAINING - HOUR),
            {},
            "dispatched",
            "its run failed",
            True,
        ),
        (DISPATCHED, {"runs": run_of(gate="failed")}, "gated", "The gate failed", True),
        (
            DISPATCHED,
            {"runs": run_of(pinned="It is pinned."), "is_pinned": True},
            "gated",
            "It is pinned.",
            True,
        ),
        (
            DISPATCHED,
            {"runs": run_of(pinned="It is pinned.")},
            "gated",
            f"which has ended. To release it: tollgate models release wine --to {SECOND}",
            True,
        ),
        (DISPATCHED, {"runs": run_of(refused="No pickles.")}, "gated", "No pickles.", True),
        (DISPATCHED, {"runs": run_of()}, "gated", "without a release", True),
        (
            DISPATCHED,
            {"runs": run_of(release=2), "releases": RELEASED},
            "released",
            "Serving was not checked",
            False,
        ),
        (
            DISPATCHED,
            {
                "runs": run_of(release=2),
                "releases": RELEASED,
                "served": {"a": 2, "b": 1, "c": None},
            },
            "released",
            "Not served yet by b.",
            False,
        ),
        (
            DISPATCHED,
            {"runs": run_of(release=2), "releases": RELEASED, "served": {"a": 2, "b": None}},
            "released",
            "Could not query b.",
            False,
        ),
        (
            DISPATCHED,
            {
                "runs": run_of(release=2),
                "releases": RELEASED,
                "served": {f"pod-{number}": 1 for number in range(7)},
            },
            "released",
            "Not served yet by pod-0, pod-1, pod-2, pod-3, pod-4 and 2 more.",
            False,
        ),
        (
            DISPATCHED,
            {"runs": run_of(release=2), "releases": RELEASED, "served": {"a": 2}},
            "served",
            None,
            False,
        ),
        (
            DISPATCHED,
            {"runs": run_of(version=FIRST, release=1), "releases": RELEASED},
            "served",
            None,
            False,
        ),
    ],
)
def test_a_drop_shows_its_last_stage_and_what_it_waits_for(
    records: DropRecords, about: dict[str, Any], last: str, waits: str | None, is_stopped: bool
) -> None:
    progress = judge_drop(records, known(**about))

    assert progress.steps[-1].stage == last
    assert (progress.waits is None) == (waits is None)
    assert waits is None or waits in (progress.waits or "")
    assert progress.is_stopped == is_stopped


@dataclass(frozen=True)
class Loop:
    """Buckets of data, models and records on the emulator."""

    signed_store: SignedStore
    data: str
    records: str

    def write(self, url: str, name: str, content: object) -> None:
        filesystem, root = open_filesystem(url)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        filesystem.pipe_file(f"{root}/{name}", raw)

    def drop(self, name: str) -> str:
        """Upload a part; return its identity."""
        self.write(self.data, f"wine/{name}", b"alcohol,class\n1,0\n")
        filesystem, root = open_filesystem(self.data)
        generation = filesystem.info(f"{root}/wine/{name}")["generation"]
        return f"{root}/wine/{name}#{generation}"

    def record(self, kind: str, drop: str, **more: str) -> None:
        """Write a function's record, with an unknown field."""
        path, _, generation = drop.partition("#")
        bucket, _, name = path.partition("/")
        payload = {"model": "wine", "bucket": bucket, "name": name, "generation": generation}
        time = datetime.now(UTC).isoformat()
        digest = hashlib.sha256(drop.encode()).hexdigest()
        self.write(
            self.records, f"{kind}/{digest}.json", {**payload, "time": time, "new": [1], **more}
        )


@pytest.fixture
def loop(tmp_path: Path, gcs: Emulator, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Loop:
    signed_store = new_signed_store(tmp_path, bucket_url)
    loop = Loop(signed_store, gcs.new_bucket(), gcs.new_bucket())
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINER_MODEL_STORE", bucket_url)
    monkeypatch.setenv("TRAINER_DATA_STORE", loop.data)
    monkeypatch.setenv("PIPELINE_RECORDS", loop.records)
    monkeypatch.setenv("PIPELINE_REPOSITORY", "shop/models")
    return loop


def status(*words: str) -> Result:
    return CliRunner().invoke(app, ["pipelines", "status", "wine", *words])


def test_a_model_without_data_has_no_drops(loop: Loop) -> None:
    result = status()

    assert (result.exit_code, result.stdout) == (0, "wine: no data has arrived yet\n")


def test_data_without_a_dispatch_is_shown_with_what_to_do(loop: Loop) -> None:
    drop = loop.drop("part.csv")

    [shown] = json.loads(status("--json").stdout)["drops"]

    assert shown["drop"] == drop
    assert "is still open" in shown["waits"]


def test_a_drop_that_is_served_shows_every_stage_with_its_time_and_link(loop: Loop) -> None:
    drop = loop.drop("part.csv")
    loop.record("claims", drop)
    loop.record("done", drop)
    loop.signed_store.publish(FIRST)
    number = (
        ReleaseManager(loop.signed_store.store, loop.signed_store.trusted, "trainer")
        .release("wine")
        .live.number
    )
    run = RunRecord(version=FIRST, key=drop, time=datetime.now(UTC), gate="passed", release=number)
    loop.signed_store.store.record_run("wine", drop, run)
    metrics = f'tollgate_model_live_release{{model="wine",version="{FIRST}"}} 1.0\n'.encode()

    with serving(lambda _: Response(200, metrics)) as url:
        document = json.loads(status("--json", "--url", url).stdout)
        text = status("--url", url).stdout

    [shown] = document["drops"]
    stages = [step["stage"] for step in shown["steps"]]
    assert stages == ["seen", "dispatched", "trained", "gated", "released", "served"]
    assert all(step["time"] for step in shown["steps"])
    links = {step["stage"]: step["link"] for step in shown["steps"]}
    assert links["seen"] == f"gs://{drop}"
    assert links["dispatched"] == "https://github.com/shop/models/actions/workflows/train.yml"
    assert links["trained"] == f"{loop.signed_store.url}/wine/versions/{FIRST}/report.html"
    assert shown["waits"] is None
    assert "  served  " in text


def test_newer_data_after_a_dispatched_drop_is_a_new_drop(loop: Loop) -> None:
    first = loop.drop("part-1.csv")
    loop.record("claims", first)
    loop.record("done", first)
    second = loop.drop("part-2.csv")

    drops = json.loads(status("--json").stdout)["drops"]

    assert [each["drop"] for each in drops] == [second, first]


def test_a_drop_that_went_into_a_later_one_says_so(loop: Loop) -> None:
    first = loop.drop("part-1.csv")
    loop.record("claims", first)  # its event found GitHub busy; the next part's did not
    second = loop.drop("part-2.csv")
    loop.record("claims", second)
    loop.record("done", second)

    drops = {each["drop"]: each for each in json.loads(status("--json").stdout)["drops"]}

    assert drops[first]["waits"] == f"Its data is part of the later drop {second}."
    assert (drops[first]["is_stopped"], drops[second]["is_stopped"]) == (True, False)


@pytest.mark.parametrize("name", ["part\u00a02.csv", "part\u202e2.csv", "part\n\x1b[31m2.csv"])
def test_data_whose_name_is_unsupported_is_shown_on_one_line_with_what_to_do(
    loop: Loop, name: str
) -> None:
    drop = loop.drop("part-1.csv")
    loop.record("claims", drop)
    loop.record("done", drop)
    loop.drop(name)

    [shown, _] = json.loads(status("--json").stdout)["drops"]
    lines = status().stdout.splitlines()

    assert shown["waits"].startswith("Its name is unsupported")
    assert shown["is_stopped"] is True
    assert lines[2].startswith("  stopped ")
    assert all(line.isprintable() for line in lines)


def test_what_no_terminal_can_print_is_escaped(loop: Loop) -> None:
    drop = loop.drop("part.csv")
    loop.record("dead", drop, reason="\ud800\n\x1b[2J", time="0001-01-01T00:00:00+14:00")

    result = status()

    assert result.exit_code == 0
    assert r"Given up: \ud800\n\x1b[2J" in result.stdout


@pytest.mark.parametrize("in_a_bucket", [True, False])
def test_a_training_by_hand_is_shown_and_deals_with_its_data(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_bucket: bool
) -> None:
    if in_a_bucket:
        generation: str | None = loop.drop("part.csv").partition("#")[2]
    else:
        monkeypatch.setenv("TRAINER_DATA_STORE", f"file://{tmp_path}/data")
        (tmp_path / "data/wine").mkdir(parents=True)
        (tmp_path / "data/wine/part.csv").write_text("a,b\n1,2\n")
        generation = None
    read = DataObject(name="part.csv", generation=generation, size=1, sha256="0" * 64)
    loop.signed_store.publish(FIRST, data=[read], created_at=datetime.now(UTC))
    loop.signed_store.release(FIRST)

    [shown] = json.loads(status("--json").stdout)["drops"]

    assert shown["drop"] == f"version {FIRST}"
    assert [step["stage"] for step in shown["steps"]] == ["trained", "gated", "released"]


def test_data_that_came_while_a_training_ran_is_not_taken_for_trained_on(loop: Loop) -> None:
    earlier = loop.drop("part.csv")
    read = DataObject(
        name="part.csv", generation=earlier.partition("#")[2], size=1, sha256="0" * 64
    )
    later = loop.drop("part.csv")
    loop.signed_store.publish(FIRST, data=[read], created_at=datetime.now(UTC))

    drops = json.loads(status("--json").stdout)["drops"]

    assert later in [each["drop"] for each in drops]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[]", b'{"model": "wine"}'])
def test_malformed_records_are_ignored(loop: Loop, content: bytes) -> None:
    drop = loop.drop("part.csv")
    loop.record("dead", drop, reason="GitHub answered 403.")
    for kind in ("claims", "done", "dead", "dispatched/wine"):
        loop.write(loop.records, f"{kind}/{'0' * 64}.json", content)

    [shown] = json.loads(status("--json").stdout)["drops"]

    assert shown["waits"] == "Given up: GitHub answered 403. Run train.yml manually."
    assert shown["is_stopped"] is True


def test_a_pin_is_shown(loop: Loop) -> None:
    for version in (FIRST, SECOND):
        loop.signed_store.publish(version)
        loop.signed_store.release(version)
    ReleaseManager(loop.signed_store.store, loop.signed_store.trusted, "ada@lab").roll_back(
        "wine", reason="slow"
    )

    assert f"wine: pinned to version {FIRST} by a rollback" in status().stdout


def test_a_training_run_with_another_key_is_shown_by_its_key(loop: Loop) -> None:
    loop.signed_store.publish(FIRST)
    key = "code/wine/0123456789abcdef"
    run = RunRecord(version=FIRST, key=key, time=datetime.now(UTC), gate="failed")
    loop.signed_store.store.record_run("wine", key, run)

    [shown] = json.loads(status("--json").stdout)["drops"]

    assert (shown["drop"], shown["is_stopped"]) == (key, True)


def test_it_works_on_folders_without_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    (tmp_path / "data/wine").mkdir(parents=True)
    (tmp_path / "data/wine/part.csv").write_text("a,b\n1,2\n")

    [shown] = json.loads(status("--json").stdout)["drops"]

    assert [step["link"] for step in shown["steps"]] == [None]
