"""`tollgate billing replay`: the events left in a journal folder are delivered once."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path

import orjson
import pytest

from services.inference.metering.billing_client import BillingClient
from services.inference.metering.journal.dead_letters import FILE_NAME
from services.inference.metering.replay import Replayed
from services.inference.metering.replay import replay as replay_folder
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.test_shipper import (
    Run,
    dead_run,
    neighbours,
)

__all__ = ["neighbours"]  # a fixture

ROOT = Path(__file__).parents[3]


replay = partial(replay_folder, first_pause_s=0.01)


async def test_dead_runs_are_delivered_and_closed_and_a_second_replay_changes_nothing(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    one, two = sorted(str(uuid.uuid4()) for _ in range(2))
    dead_run(tmp_path, one, ["a", "b"])
    dead_run(tmp_path, two, ["b", "c"], tail=b'deadbeef {"torn')

    first = await replay(tmp_path, billing)
    second = await replay(tmp_path, billing)

    assert first == Replayed(runs=2, accepted=3, duplicates=1)
    assert second == Replayed()
    assert neighbours.charged.keys() == {"a", "b", "c"}
    closed = {"last": 2, "closed": True}
    assert neighbours.sources == {one: closed, two: closed}
    assert list(tmp_path.iterdir()) == []


async def test_a_run_that_is_alive_is_left_alone(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    alive = Run(tmp_path, billing)
    await alive.append("mine")

    replayed = await replay(tmp_path, billing)

    assert replayed == Replayed()
    assert neighbours.events == []
    await alive.shipper.drain()
    assert neighbours.charged.keys() == {"mine"}


async def test_dead_letters_that_are_accepted_now_are_removed_and_others_stay(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.reject = {"x", "y"}
    dead_run(tmp_path, str(uuid.uuid4()), ["x", "good", "y"])
    assert (await replay(tmp_path, billing)).rejected == 2
    neighbours.reject = {"y"}

    replayed = await replay(tmp_path, billing)

    assert replayed == Replayed(accepted=1, rejected=1)
    assert neighbours.charged.keys() == {"good", "x"}
    [left] = (tmp_path / FILE_NAME).read_bytes().splitlines()
    assert orjson.loads(orjson.loads(left)["event"])["id"] == "y"


async def test_a_dead_letter_whose_sequence_was_counted_is_sent_without_it(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.reject = {"x"}
    dead_run(tmp_path, str(uuid.uuid4()), ["x"])
    await replay(tmp_path, billing)
    neighbours.reject = set()

    await replay(tmp_path, billing)

    assert "sequence" not in neighbours.charged["x"]
    assert "journal" not in neighbours.charged["x"]
    assert not (tmp_path / FILE_NAME).exists()


async def test_an_event_that_was_refused_unseen_is_sent_with_its_sequence(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.max_batch = 0
    dead_run(tmp_path, str(uuid.uuid4()), ["x"])
    assert (await replay(tmp_path, billing)).rejected == 1
    neighbours.max_batch = 10

    await replay(tmp_path, billing)

    assert neighbours.charged["x"]["sequence"] == f"{1:020d}"


async def test_a_damaged_line_stays_a_dead_letter(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    journal = str(uuid.uuid4())
    dead_run(tmp_path, journal, ["good"], tail=b"00000000 \xff no event\n")

    first = await replay(tmp_path, billing)
    second = await replay(tmp_path, billing)

    assert (first.accepted, first.rejected) == (1, 1)
    assert second == Replayed(rejected=1)
    assert len(neighbours.events) == 1


async def test_what_cannot_be_delivered_stays_in_the_folder(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.failing = {"/events": 503}
    dead_run(tmp_path, str(uuid.uuid4()), ["a", "b"])

    failed = await replay(tmp_path, billing)
    neighbours.failing = {}
    again = await replay(tmp_path, billing)

    assert (failed.undelivered, failed.failure) == (2, "billing answered 503")
    assert again == Replayed(runs=1, accepted=2)


async def test_dead_letters_written_during_a_replay_are_kept(
    tmp_path: Path, billing: BillingClient, neighbours: Neighbours
) -> None:
    neighbours.reject = {"old", "new"}
    dead_run(tmp_path, str(uuid.uuid4()), ["old"])
    await replay(tmp_path, billing)
    neighbours.reject = {"new"}
    dead_run(tmp_path, str(uuid.uuid4()), ["new"])

    replayed = await replay(tmp_path, billing)

    assert (replayed.accepted, replayed.rejected) == (1, 1)
    assert neighbours.charged.keys() == {"old"}


@pytest.mark.costly
class TestCommand:
    async def test_it_prints_counts_and_fails_only_if_something_remains(
        self, tmp_path: Path, neighbours: Neighbours
    ) -> None:
        neighbours.reject = {"bad"}
        dead_run(tmp_path, str(uuid.uuid4()), ["good"])

        result = await command(tmp_path, neighbours, "--json")
        dead_run(tmp_path, str(uuid.uuid4()), ["bad"])
        refused = await command(tmp_path, neighbours)

        assert (result.returncode, json.loads(result.stdout)["accepted"]) == (0, 1)
        assert refused.returncode == 1
        assert "1 dead letters" in refused.stdout
        assert "error: billing rejected the dead letters" in refused.stderr

    async def test_it_fails_when_billing_is_away(
        self, tmp_path: Path, neighbours: Neighbours
    ) -> None:
        neighbours.failing = {"/events": 503}
        dead_run(tmp_path, str(uuid.uuid4()), ["a"])

        result = await command(tmp_path, neighbours, "--json")

        assert result.returncode == 1
        assert json.loads(result.stdout)["undelivered"] == 1
        assert "error: billing answered 503" in result.stderr

    async def test_a_missing_folder_is_reported_in_one_line(
        self, tmp_path: Path, neighbours: Neighbours
    ) -> None:
        result = await command(tmp_path / "none", neighbours)

        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert "No such file" in result.stderr


async def command(
    folder: Path, neighbours: Neighbours, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run `tollgate billing replay` in a thread, because this one serves the neighbours."""
    settings = {
        "INFERENCE_AUTH_URL": neighbours.url,
        "INFERENCE_BILLING_URL": neighbours.url,
        "INFERENCE_CLIENT_ID": "inference",
        "INFERENCE_CLIENT_SECRET": "secret",
    }
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli.main", "billing", "replay", "--journal", str(folder), *options],
        cwd=ROOT,
        env=os.environ | settings,
        text=True,
        capture_output=True,
        timeout=60,
    )
