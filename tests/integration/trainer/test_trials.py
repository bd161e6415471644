"""Canaries and shadows in release records, with ready-made versions."""

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import models
from harness.stores import FIRST, SECOND, THIRD, SignedStore
from registry.records import Canary, Column, Shadow, Signature, VersionNotFound, VersionRefused
from registry.releases import AlreadyLive, NoVersion
from registry.verify import verify_store
from tests.integration.trainer.conftest import Workshop
from trainer.settings import TrainerSettings

WIDER = Signature(
    task="classification",
    target="class",
    columns=[Column(name="alcohol", kind="number"), Column(name="ash", kind="number")],
    classes=[0, 1],
)


@pytest.fixture
def workshop(tmp_path: Path, store_url: str) -> Workshop:
    """Publishes a live version, a second one, and a third that failed its gate."""
    workshop = Workshop(tmp_path, TrainerSettings(home=tmp_path, model_store=store_url))
    signed_store = signed_store_of(workshop)
    signed_store.publish(FIRST)
    signed_store.publish(SECOND)
    signed_store.publish(THIRD, gate="failed")
    workshop.release_manager.release("wine", version=FIRST)
    return workshop


def signed_store_of(workshop: Workshop) -> SignedStore:
    key = workshop.settings.load_signing_key()
    return SignedStore(workshop.home, workshop.settings.model_store_url, key, workshop.trusted)


class TestRecords:
    def test_a_canary_keeps_the_live_version_until_it_is_ended(self, workshop: Workshop) -> None:
        begun = workshop.release_manager.canary(
            "wine", version=SECOND, percent=30, reason="try"
        ).live
        again = workshop.release_manager.canary("wine", version=SECOND, percent=30)
        more = workshop.release_manager.canary("wine", version=SECOND, percent=60).live
        ended = workshop.release_manager.canary("wine", version=None).live

        assert (begun.number, begun.action, begun.version) == (2, "canary", FIRST)
        assert begun.canary == Canary(version=SECOND, percent=30)
        assert not again.written
        assert (more.number, more.canary) == (3, Canary(version=SECOND, percent=60))
        assert (ended.action, ended.version, ended.canary) == ("canary", FIRST, None)
        assert verify_store(workshop.store, workshop.trusted, report=lambda *_: None).failures == []

    def test_a_shadow_and_a_canary_coexist_unless_they_are_the_same_version(
        self, workshop: Workshop
    ) -> None:
        fourth = "20261124t120000z-00000004"
        signed_store_of(workshop).publish(fourth)
        workshop.release_manager.shadow("wine", version=SECOND)

        both = workshop.release_manager.canary("wine", version=fourth, percent=10).live
        one = workshop.release_manager.canary("wine", version=SECOND, percent=10).live
        other = workshop.release_manager.shadow("wine", version=SECOND).live

        assert (both.canary, both.shadow) == (
            Canary(version=fourth, percent=10),
            Shadow(version=SECOND),
        )
        assert (one.canary, one.shadow) == (Canary(version=SECOND, percent=10), None)
        assert (other.canary, other.shadow) == (None, Shadow(version=SECOND))

    def test_releasing_the_version_or_rolling_back_ends_both(self, workshop: Workshop) -> None:
        release_manager = workshop.release_manager
        for end in (
            partial(release_manager.release, "wine", version=SECOND),
            partial(release_manager.roll_back, "wine", version=FIRST),
        ):
            live = workshop.store.live_release("wine", workshop.trusted)
            assert live is not None
            tried = SECOND if live.version == FIRST else FIRST
            release_manager.canary("wine", version=tried, percent=10)

            record = end().live

            assert (record.canary, record.shadow) == (None, None)

    def test_an_automatic_rollback_of_a_canary_keeps_the_live_version(
        self, workshop: Workshop
    ) -> None:
        workshop.release_manager.release("wine", version=SECOND)
        number = workshop.release_manager.canary("wine", version=FIRST, percent=10).live.number

        first = workshop.release_manager.roll_back("wine", expected_release=number, reason="slow")
        second = workshop.release_manager.roll_back("wine", expected_release=number, reason="slow")
        person = workshop.release_manager.roll_back("wine")

        assert (first.written, second.written) == (True, False)
        assert (first.live.version, first.live.canary) == (SECOND, None)
        assert person.live.version == FIRST

    def test_an_unsuitable_canary_or_shadow_is_refused_and_nothing_is_written(
        self, workshop: Workshop
    ) -> None:
        wider = "20261125t120000z-00000005"
        signed_store_of(workshop).publish(wider, signature=WIDER)
        for version, error in (
            (FIRST, AlreadyLive),
            (THIRD, VersionRefused),
            (wider, VersionRefused),
            ("20261126t120000z-00000006", VersionNotFound),
        ):
            with pytest.raises(error):
                workshop.release_manager.canary("wine", version=version, percent=10)
            with pytest.raises(error):
                workshop.release_manager.shadow("wine", version=version)
        with pytest.raises(NoVersion):
            workshop.release_manager.canary("beer", version=FIRST, percent=10)

        assert workshop.store.list_releases("wine") == [1]


class TestCommands:
    @pytest.fixture(autouse=True)
    def environment(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOLLGATE_HOME", str(workshop.home))
        monkeypatch.setenv("TRAINER_MODEL_STORE", workshop.settings.model_store_url)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(models, list(words))

    def test_both_are_reported_and_listed(self, workshop: Workshop) -> None:
        begun = self.run("canary", "wine", "--to", SECOND, "--percent", "12.5")
        listed = json.loads(self.run("list", "--json").stdout)
        shown = self.run("show", "wine")
        shadow = self.run("shadow", "wine", "--to", SECOND, "--json")
        ended = self.run("shadow", "wine", "--off")

        assert f"canary: version {SECOND} for 12.5 % of callers" in begun.stdout
        assert f"canary: version {SECOND}" in shown.stdout
        assert [row["role"] for row in listed] == ["live", "canary", None]
        assert json.loads(shadow.stdout)["live"]["shadow"] == {"version": SECOND}
        assert (ended.exit_code, "shadow:" in ended.stdout) == (0, False)

    @pytest.mark.parametrize(
        "words",
        [
            ("canary", "wine"),
            ("canary", "wine", "--to", SECOND),
            ("canary", "wine", "--percent", "10"),
            ("canary", "wine", "--to", SECOND, "--percent", "0"),
            ("canary", "wine", "--to", SECOND, "--percent", "nan"),
            ("canary", "wine", "--to", SECOND, "--percent", "101"),
            ("canary", "wine", "--to", SECOND, "--percent", "10", "--off"),
            ("shadow", "wine"),
            ("shadow", "wine", "--to", SECOND, "--off"),
        ],
    )
    def test_contradictory_options_are_exit_code_2(
        self, workshop: Workshop, words: tuple[str, ...]
    ) -> None:
        assert self.run(*words).exit_code == 2
        assert workshop.store.list_releases("wine") == [1]
