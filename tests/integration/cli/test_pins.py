"""`tollgate models pin` and `unpin`, and where a pin shows up; on a folder and a bucket."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from harness.http_servers import Response, serving
from harness.stores import FIRST, SECOND, SignedStore, new_signed_store
from registry.pins import Pinned, find_pin
from registry.releases import ReleaseManager


@pytest.fixture
def store(tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> SignedStore:
    """Release two passed versions; the second is live as release 2."""
    signed_store = new_signed_store(tmp_path, store_url)
    for version in (FIRST, SECOND):
        signed_store.publish(version)
        signed_store.release(version)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINER_MODEL_STORE", store_url)
    monkeypatch.setenv("TRAINER_ACTOR", "eve@desk")
    return signed_store


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


def test_a_pin_shows_in_the_list_until_it_is_ended(store: SignedStore) -> None:
    pinned = run("pin", "wine", SECOND, "--reason", "audit", "--until", "2999-01-31")
    listed, rows = run("list").stdout, json.loads(run("list", "--json").stdout)
    ended = run("unpin", "wine")

    assert (pinned.exit_code, ended.exit_code) == (0, 0)
    assert f"wine: pinned to version {SECOND} (eve@desk, " in listed
    assert "until 2999-01-31 00:00Z: audit; no version is released automatically until: " in listed
    assert f"{SECOND}  passed  live, pinned\n" in listed
    assert [row["pinned"] for row in rows] == [False, True]
    assert ended.stdout == "wine: not pinned; automatic releases are allowed\n"
    assert "pinned" not in run("list").stdout


def test_a_model_that_does_not_exist_is_named_in_its_list(store: SignedStore) -> None:
    listed = run("list", "wines")

    assert (listed.exit_code, listed.stdout) == (0, "Model 'wines' has no versions.\n")


def test_a_repeat_changes_nothing_and_exits_0(store: SignedStore) -> None:
    words = ("pin", "wine", SECOND, "--reason", "audit", "--json")

    first, again = json.loads(run(*words).stdout), json.loads(run(*words).stdout)
    run("unpin", "wine")
    unpinned = run("unpin", "wine")

    assert (first["written"], again["written"], again["pinned"]) == (True, False, True)
    assert unpinned.stdout == "wine: not pinned already; automatic releases are allowed\n"


def test_pinning_another_version_puts_it_live(store: SignedStore) -> None:
    result = run("pin", "wine", FIRST, "--reason", "stable")

    assert f"wine: version {FIRST} is live, release 3" in result.stdout
    record = store.store.live_release("wine", store.trusted)
    assert record is not None
    assert record.version == FIRST


@pytest.mark.parametrize(
    "words",
    [
        ("pin", "wine", SECOND),
        ("pin", "wine", SECOND, "--reason", " "),
        ("pin", "wine", SECOND, "--reason", "x", "--until", "tomorrow"),
        ("pin", "wine", SECOND, "--reason", "x", "--until", "2020-01-01"),
        ("pin", "wine", SECOND, "--reason", "x", "--until", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_invalid_options_are_refused_and_nothing_is_written(
    store: SignedStore, words: tuple[str, ...]
) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert store.store.list_pins("wine") == []


def test_a_rollback_pins_unless_no_pin_is_given(store: SignedStore) -> None:
    pinning = run("rollback", "wine", "--reason", "slow")
    run("release", "wine", "--to", SECOND)
    plain = run("rollback", "wine", "--to", FIRST, "--no-pin")

    assert f"pinned to version {FIRST} by a rollback" in pinning.stdout
    assert "tollgate models unpin wine" in pinning.stdout
    assert "pinned" not in plain.stdout
    assert find_pin(store.store, "wine", store.trusted) is None


def test_a_pin_shows_in_the_report(store: SignedStore, tmp_path: Path) -> None:
    run("pin", "wine", SECOND, "--reason", "<audit>")
    page = tmp_path / "report.html"
    metrics = f'tollgate_drift_rows{{model="wine",version="{SECOND}"}} 1.0\n'.encode()

    with serving(lambda _: Response(200, metrics)) as url:
        written = run("report", "wine", "--url", url, "--out", str(page))
        document = json.loads(run("report", "wine", "--url", url, "--json").stdout)

    assert written.exit_code == 0, written.output
    assert f"pinned to version {SECOND}" in page.read_text()
    assert "&lt;audit&gt;" in page.read_text()
    assert document["pin"].startswith(f"pinned to version {SECOND}")


@pytest.mark.parametrize("by_rollback", [True, False])
def test_what_is_held_back_names_what_ends_the_pin(store: SignedStore, by_rollback: bool) -> None:
    words = ("rollback", "wine") if by_rollback else ("pin", "wine", FIRST, "--reason", "audit")
    run(*words)
    release_manager = ReleaseManager(store.store, store.trusted, "trainer")

    with pytest.raises(Pinned) as held_back:
        release_manager.release("wine", version=SECOND, automatic=True)
    run("release", "wine", "--to", SECOND)

    assert ("or a manual release" in str(held_back.value)) is by_rollback
    assert (find_pin(store.store, "wine", store.trusted) is None) is by_rollback
