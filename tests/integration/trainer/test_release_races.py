"""Several processes that release and roll back at once, on a folder and on a bucket."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.die_with_parent import die_with_parent
from harness.stores import FIRST, SECOND, THIRD, SignedStore, new_signed_store
from registry.records import Release
from registry.verify import verify_store

ROOT = Path(__file__).parents[3]
WRITERS = 3
TURNS = 8


@pytest.mark.costly
def test_every_number_has_one_writer_and_every_record_follows_the_one_before(
    tmp_path: Path, store_url: str
) -> None:
    signed_store = new_signed_store(tmp_path, store_url)
    for version in (FIRST, SECOND, THIRD):
        signed_store.publish(version)

    written = race(signed_store)

    store = signed_store.store
    numbers = store.list_releases("wine")
    assert numbers == list(range(1, len(written) + 1))
    assert [store.find_release("wine", number) for number in numbers] == written
    assert [record.previous for record in written] == [None, *numbers[:-1]]
    # A release of the live version writes nothing, so no record repeats the one before.
    assert all(a.version != b.version for a, b in itertools.pairwise(written))
    assert verify_store(store, signed_store.trusted, report=lambda *_: None).failures == []


def race(signed_store: SignedStore) -> list[Release]:
    """Runs the writers; returns the records that they report, by number."""
    environment = os.environ | {
        "TRAINER_MODEL_STORE": signed_store.url,
        "TRAINER_SIGNING_KEY": str(signed_store.folder / "keys/signing.pem"),
        "TRAINER_TRUSTED_KEYS": str(signed_store.folder / "keys/trusted"),
    }
    versions = [FIRST, SECOND, THIRD]
    command = [sys.executable, "-m", "tests.integration.trainer.writer", str(TURNS)]
    writers = [
        subprocess.Popen(
            die_with_parent(*command, *versions[index:], *versions[:index]),
            cwd=ROOT,
            env=environment | {"TRAINER_ACTOR": f"writer-{index}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    records = [Release.model_validate_json(line) for text in outputs for line in text.splitlines()]
    return sorted(records, key=lambda record: record.number)
