"""Releases and rollbacks of ready-made versions."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from cli.main import models
from cli.train import train
from harness.stores import FIRST, SECOND, THIRD, SignedStore, release
from registry.records import ReleaseTaken, VersionRefused
from registry.releases import NoVersion
from tests.integration.trainer.conftest import Workshop
from trainer.settings import TrainerSettings

FOURTH = "20261124t120000z-00000004"


@pytest.fixture
def workshop(tmp_path: Path, store_url: str) -> Workshop:
    return Workshop(tmp_path, TrainerSettings(home=tmp_path, model_store=store_url))


@pytest.fixture
def three(workshop: Workshop) -> Workshop:
    """Publishes three passed versions, released one after the other, and a failed one."""
    signed_store = signed_store_of(workshop)
    for version in (FIRST, SECOND, THIRD):
        signed_store.publish(version)
        workshop.release_manager.release("wine", version=version)
    signed_store.publish(FOURTH, gate="failed")
    return workshop


def signed_store_of(workshop: Workshop) -> SignedStore:
    key = workshop.settings.load_signing_key()
    return SignedStore(workshop.home, workshop.settings.model_store_url, key, workshop.trusted)


def live(workshop: Workshop) -> str | None:
    record = workshop.store.live_release("wine", workshop.trusted)
    return record.version if record else None


class TestRelease:
    def test_the_newest_that_passed_is_the_default(self, three: Workshop) -> None:
        three.release_manager.release("wine", version=FIRST)

        decision = three.release_manager.release("wine", reason="again")

        assert (decision.live.version, decision.live.previous) == (THIRD, 4)
        assert (decision.live.by, decision.live.reason) == ("ada@lab", "again")

    def test_releasing_the_live_version_writes_nothing(self, three: Workshop) -> None:
        decision = three.release_manager.release("wine", version=THIRD)

        assert not decision.written
        assert three.store.list_releases("wine") == [1, 2, 3]

    def test_a_failed_or_corrupted_version_is_refused(self, three: Workshop) -> None:
        signed_store_of(three).path(FIRST, "manifest.json").flip_bit()

        for version, reason in ((FOURTH, "gate"), (FIRST, "signature")):
            with pytest.raises(VersionRefused) as refusal:
                three.release_manager.release("wine", version=version)
            assert refusal.value.reason == reason
        assert live(three) == THIRD

    def test_a_release_ends_a_canary(self, three: Workshop) -> None:
        digest = three.store.manifest_sha256("wine", THIRD)
        canary = {"version": SECOND, "percent": 10}
        three.store.append_release(
            "wine", decide=lambda n, _: release(n, THIRD, digest, action="canary", canary=canary)
        )

        assert three.release_manager.release("wine", version=THIRD).written

    def test_the_first_record_has_no_previous_one(self, workshop: Workshop) -> None:
        signed_store_of(workshop).publish(FIRST)

        first = workshop.release_manager.release("wine").live

        assert (first.number, first.previous, first.action) == (1, None, "release")

    def test_the_record_of_a_faster_writer_is_shown(self, three: Workshop) -> None:
        store = three.store
        release_manager, rival = three.release_manager, three.release_manager

        class Slow(type(store)):  # type: ignore[misc]
            """Lets the rival write between the read of the live version and the write."""

            def open_release(self, *args: Any) -> Any:
                if len(store.list_releases("wine")) == 3 and args[1].number == 4:
                    rival.release("wine", version=FIRST)
                return super().open_release(*args)

        slow = type(release_manager)(
            store=Slow(three.settings.model_store_url), trusted=three.trusted, by="bob@lab"
        )

        with pytest.raises(ReleaseTaken, match=f"by ada@lab in the meantime: release of.*{FIRST}"):
            slow.release("wine", version=SECOND)
        assert live(three) == FIRST


class TestRollback:
    def test_repeated_rollbacks_go_further_back_and_never_forward(self, three: Workshop) -> None:
        assert three.release_manager.roll_back("wine").live.version == SECOND
        assert three.release_manager.roll_back("wine").live.version == FIRST
        with pytest.raises(NoVersion):
            three.release_manager.roll_back("wine")

        assert live(three) == FIRST
        assert three.store.list_releases("wine") == [1, 2, 3, 4, 5]

    def test_a_version_may_be_named_and_a_repeat_writes_nothing(self, three: Workshop) -> None:
        first = three.release_manager.roll_back("wine", version=FIRST)
        again = three.release_manager.roll_back("wine", version=FIRST)

        assert (first.written, again.written) == (True, False)
        assert (again.live.action, again.live.number) == ("rollback", 4)

    def test_it_ends_a_canary_and_a_shadow(self, three: Workshop) -> None:
        digest = three.store.manifest_sha256("wine", THIRD)
        trials = {"canary": {"version": FIRST, "percent": 10}, "shadow": {"version": SECOND}}
        three.store.append_release(
            "wine", decide=lambda n, _: release(n, THIRD, digest, action="canary", **trials)
        )

        back = three.release_manager.roll_back("wine", version=THIRD)

        assert back.written
        assert (back.live.canary, back.live.shadow) == (None, None)

    def test_invalid_records_are_not_rollback_targets(self, three: Workshop) -> None:
        three.store.append_release("wine", decide=lambda n, _: release(n, FIRST, "0" * 64))
        signed_store_of(three).record(5).write_bytes(b"rubbish")

        decision = three.release_manager.roll_back("wine")

        assert (decision.live.version, decision.live.number) == (SECOND, 6)

    def test_a_rolled_back_version_is_not_a_target_after_the_next_release(
        self, three: Workshop
    ) -> None:
        three.release_manager.roll_back("wine")
        signed_store_of(three).publish("20261125t120000z-00000005")
        three.release_manager.release("wine")

        assert three.release_manager.roll_back("wine").live.version == SECOND

    def test_without_a_live_version_there_is_nothing_to_roll_back(self, workshop: Workshop) -> None:
        with pytest.raises(NoVersion):
            workshop.release_manager.roll_back("wine")


class TestCommands:
    @pytest.fixture(autouse=True)
    def _at_home(self, monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> None:
        monkeypatch.setenv("TOLLGATE_HOME", str(workshop.home))
        monkeypatch.setenv("TRAINER_MODEL_STORE", workshop.settings.model_store_url)
        monkeypatch.setenv("TRAINER_ACTOR", "eve@desk")

    @staticmethod
    def run(*words: str) -> Result:
        app = typer.Typer()
        app.command()(train)
        app.add_typer(models, name="models")
        return CliRunner().invoke(app, list(words))

    def test_list_shows_gates_and_the_live_version(self, three: Workshop) -> None:
        signed_store_of(three).path(SECOND, "manifest.sig").flip_bit()

        rows = json.loads(self.run("models", "list", "--json").stdout)

        assert [(row["version"], row["gate"], row["live"]) for row in rows] == [
            (FIRST, "passed", False),
            (SECOND, "refused: signature", False),
            (THIRD, "passed", True),
            (FOURTH, "failed", False),
        ]
        assert "refused: signature" in self.run("models", "list").stdout

    def test_show_defaults_to_the_live_version(self, three: Workshop) -> None:
        assert f"wine {THIRD}: gate passed, live" in self.run("models", "show", "wine").stdout
        output = self.run("models", "show", "wine", "--to", FOURTH, "--json").stdout
        assert json.loads(output)["gate"] == "failed"

    def test_release_and_rollback_report_and_are_idempotent(self, three: Workshop) -> None:
        back = self.run("models", "rollback", "wine", "--to", FIRST, "--reason", "bad", "--json")
        again = self.run("models", "rollback", "wine", "--to", FIRST)
        forth = self.run("models", "release", "wine")

        assert json.loads(back.stdout)["live"]["by"] == "eve@desk"
        assert (back.exit_code, again.exit_code, forth.exit_code) == (0, 0, 0)
        assert "live already" in again.stdout
        assert live(three) == THIRD

    def test_a_record_shows_author_reason_and_time(self, three: Workshop) -> None:
        self.run("models", "rollback", "wine", "--reason", "wrong on Mondays")

        output = self.run("models", "show", "wine").stdout.splitlines()[1]

        record = three.store.live_release("wine", three.trusted)
        assert record is not None
        assert (record.by, record.reason) == ("eve@desk", "wrong on Mondays")
        when = f"{record.time:%Y-%m-%d %H:%M:%SZ}"
        assert output == f"rollback 4 by eve@desk, {when}: wrong on Mondays"

    def test_the_default_author_is_user_at_host(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TRAINER_ACTOR")
        signed_store_of(workshop).publish(FIRST)

        output = json.loads(self.run("models", "release", "wine", "--json").stdout)

        assert output["live"]["by"].endswith(f"@{socket.gethostname()}")

    def test_list_accepts_one_model(self, three: Workshop) -> None:
        assert len(json.loads(self.run("models", "list", "wine", "--json").stdout)) == 4
        assert json.loads(self.run("models", "list", "beer", "--json").stdout) == []
        assert self.run("models", "list", "../wine").exit_code == 1

    def test_a_failure_is_one_line_and_exit_code_1(self, three: Workshop) -> None:
        for words in (
            ("models", "release", "wine", "--to", FOURTH),
            ("models", "release", "nothing"),
            ("models", "show", "nothing"),
            ("models", "rollback", "../wine"),
            ("train", "nothing"),
        ):
            result = self.run(*words)
            errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
            assert (result.exit_code, len(errors)) == (1, 1)
            assert "Traceback" not in result.output

    def test_verify_names_each_failure(self, three: Workshop) -> None:
        assert self.run("models", "verify").exit_code == 0
        signed_store = signed_store_of(three)
        signed_store.path(FIRST, "model.onnx").flip_bit()
        signed_store.path(SECOND, "manifest.json").flip_bit()
        three.store.append_release("wine", decide=lambda n, _: release(n, FIRST, "0" * 64))

        result = self.run("models", "verify", "--json")

        failures = json.loads(result.stdout)["failures"]
        assert result.exit_code == 1
        assert [failure for failure in failures if "model.onnx" in failure and FIRST in failure]
        assert [failure for failure in failures if SECOND in failure]
        assert [failure for failure in failures if "Release 2" in failure]
        assert [failure for failure in failures if "Release 4" in failure]
        assert len(failures) == 4

    def test_a_bad_setting_is_named_and_exit_code_2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRAINER_ALLOW_JOBLIB", "perhaps")

        result = self.run("models", "list")

        assert result.exit_code == 2
        assert "TRAINER_ALLOW_JOBLIB" in result.stderr
