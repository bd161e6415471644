"""No record, with any bytes or number, causes a traceback or blocks later releases."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from harness.stores import FIRST, SECOND, SignedStore, new_signed_store, release

VALID: dict[str, Any] = release(7, SECOND, "0" * 64).model_dump(mode="json")
HOSTILE = [
    b"",
    b"\x00\xff\xfe",
    b"null",
    b"[]",
    b"9" * 5_000,
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"number": 7}',
    json.dumps(VALID | {"number": 10**30}).encode(),
    json.dumps(VALID | {"previous": 10**4_000}).encode(),
    json.dumps(VALID | {"version": None}).encode(),
    json.dumps(VALID | {"version": "../../x"}).encode(),
    json.dumps(VALID | {"time": "9999-12-31T23:59:59-23:59"}).encode(),
    json.dumps(VALID | {"time": "0001-01-01T00:00:00+14:00"}).encode(),
    json.dumps(VALID | {"by": "\ud800", "reason": "\x1b[2J" * 100}).encode(),
    json.dumps(VALID | {"canary": {"version": FIRST, "percent": "nan"}}).encode(),
    json.dumps(VALID).encode(),
]
COMMANDS = [
    ("list",),
    ("show", "wine"),
    ("verify",),
    ("release", "wine", "--to", FIRST),
    ("canary", "wine", "--to", SECOND, "--percent", "10"),
    ("pin", "wine", SECOND, "--reason", "stable"),
    ("unpin", "wine"),
    ("rollback", "wine"),
    ("withdraw", "wine", "--release", "7"),
    ("wait", "wine", "--release", "7", "--url", "http://127.0.0.1:1", "--within", "0"),
    ("wait", "wine", "--release", "99999999", "--url", "http://127.0.0.1:1", "--within", "0"),
    ("check", "wine", "--release", "7", "--url", "http://127.0.0.1:1", "--within", "0"),
]


@pytest.fixture
def store(tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> SignedStore:
    """A store with two passed versions, released one after the other."""
    signed_store = new_signed_store(tmp_path, store_url)
    for version in (FIRST, SECOND):
        signed_store.publish(version)
        signed_store.release(version)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINER_MODEL_STORE", store_url)
    return signed_store


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


@pytest.mark.costly
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_no_command_ends_in_a_traceback(store: SignedStore, content: bytes) -> None:
    for folder in ("releases", "pins"):
        for number in (7, 99_999_999):
            store.blob(f"{folder}/{number:08d}.json").write_bytes(content)
    store.blob(f"once/{'0' * 64}.json").write_bytes(content)

    for words in COMMANDS:
        result = run(*words)

        assert result.exception is None or isinstance(result.exception, SystemExit), words
        assert result.exit_code in (0, 1), words
        assert "Traceback" not in result.output


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_record_of_a_time_that_utc_does_not_have_is_malformed(
    store: SignedStore, time: str
) -> None:
    live = json.loads(store.record(2).read_bytes())
    rollback = {**live, "number": 3, "previous": 2, "action": "rollback", "time": time}
    pin = {"number": 1, "action": "pin", "version": SECOND, "until": time, "release": 2}
    store.record(3).write_bytes(json.dumps(rollback).encode())
    store.blob("pins/00000001.json").write_bytes(
        json.dumps({**pin, "by": "ada", "reason": "", "time": time}).encode()
    )

    shown = run("list")

    assert shown.exit_code == 0
    assert "pinned" not in shown.stdout


def test_a_stray_record_does_not_block_releases_and_rollbacks(store: SignedStore) -> None:
    store.record(99_999_999).write_bytes(b"junk")

    forth = run("release", "wine", "--to", FIRST)
    back = run("rollback", "wine", "--to", SECOND)

    assert (forth.exit_code, back.exit_code) == (0, 0)
    assert store.store.list_releases("wine") == [1, 2, 3, 4]
    assert "Release 99999999 of 'wine' is far beyond the sequence" in run("verify").stderr


def test_a_stray_record_is_not_waited_for(store: SignedStore) -> None:
    digest = store.store.manifest_sha256("wine", FIRST)
    stray = release(99_999_999, FIRST, digest).model_dump_json().encode()
    store.record(99_999_999).write_bytes(stray)

    ended = run("wait", "wine", "--release", "99999999", "--url", "http://127.0.0.1:1")

    assert ended.exit_code == 1
    assert ended.stderr == (
        "error: Release 99999999 of 'wine' is far beyond the sequence and is ignored.\n"
    )
