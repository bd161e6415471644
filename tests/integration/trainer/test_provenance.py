"""What a version records about itself, and what may change between two versions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from cli.main import models
from cli.train import train
from registry.cards import Card
from registry.records import Manifest, RunRecord
from tests.integration.trainer import samples
from tests.integration.trainer.conftest import Workshop, new_workshop
from trainer.errors import DataError
from trainer.outcome import Outcome

CARD = {"public": True, "title": "Sizes", "summary": "How big.", "limitations": ["Not small."]}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Trains and releases `m`."""
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    workshop.put_rows("m", samples.HEADER, samples.rows(samples.text))
    workshop.configure("m", card=CARD)
    assert workshop.train("m", target="y", release=True).release == 1
    return workshop


@pytest.fixture
def shop(released: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Copies a state folder in which `m` is live; commands find it."""
    shop = released.copy(tmp_path / "shop")
    monkeypatch.setenv("TOLLGATE_HOME", str(shop.home))
    return shop


def run(*words: str) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, list(words))


def spoil(shop: Workshop) -> None:
    """Keeps the columns, but makes the target unrelated to them."""
    labels = [row[-1] for row in samples.rows(samples.text, seed=2)]
    rows = zip(samples.rows(samples.text), labels, strict=True)
    shop.put_rows("m", samples.HEADER, [(*row[:-1], label) for row, label in rows])


def only(shop: Workshop) -> Manifest:
    [version] = shop.store.list_versions("m")
    return shop.store.open_version("m", version, shop.trusted)


class TestStatistics:
    @pytest.mark.costly
    def test_describe_every_column(self, shop: Workshop) -> None:
        found = only(shop).statistics

        assert found is not None
        size, sold, colour, void = found.columns
        assert (size.count, size.kind, len(size.edges or [])) == (200, "number", 9)
        assert 0.05 < size.missing < 0.2
        assert np.allclose(size.shares, 0.1, atol=0.02)
        assert set(sold.categories or []) == {False, True}
        assert set(colour.categories or []) == {"red", "green", "blue"}
        assert colour.shares[-1] == 0.0
        assert (void.missing, void.shares) == (1.0, [])
        for column in (size, sold, colour, found.target, found.predictions):
            assert sum(column.shares) == pytest.approx(1, abs=1e-4)
        assert (found.target.count, found.predictions.count) == (200, 50)

    @pytest.mark.costly
    def test_keep_the_manifest_small_with_many_columns(self, workshop: Workshop) -> None:
        chance = np.random.default_rng(0)
        numbers = chance.normal(size=(60, 900)).round(2)
        rows = [(*row, int(row[0] > 0)) for row in numbers.tolist()]
        workshop.put_rows("m", [*(f"column_{i}" for i in range(900)), "y"], rows)
        workshop.put("m", '{"target": "y", "estimators": ["linear"]}', name="dataset.json")

        workshop.train("m")

        [file] = workshop.home.glob("models/m/versions/*/manifest.json")
        assert file.stat().st_size <= 256 * 1024
        assert only(workshop).warm_up.rows

    def test_are_optional_in_an_older_manifest(self, shop: Workshop) -> None:
        document = only(shop).model_dump(mode="json")
        for name in ("statistics", "serving", "forced_reason", "card"):
            del document[name]

        older = Manifest.model_validate(document)

        assert (older.serving, older.statistics, older.forced_reason) == ("onnx", None, None)
        assert older.card is None


class TestSignature:
    @pytest.mark.costly
    @pytest.mark.parametrize(
        ("header", "change", "message"),
        [
            ((*samples.HEADER, "z"), lambda row: (*row, 1), "column 'z' is new"),
            (("sold", "colour", "void", "y"), lambda row: row[1:], "column 'size' is missing"),
            (
                samples.HEADER,
                lambda row: (*row[:-1], row[-1] == "big"),
                "the target was text and is boolean",
            ),
            (
                samples.HEADER,
                lambda row: ("much", *row[1:]),
                "column 'size' was number and is text",
            ),
        ],
    )
    def test_must_not_change_without_the_flag(
        self, shop: Workshop, header: tuple[str, ...], change: Any, message: str
    ) -> None:
        shop.put_rows("m", header, [change(row) for row in samples.rows(samples.text)])

        result = run("m", "--release")

        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert (result.exit_code, len(errors)) == (1, 1)
        assert message in errors[0]
        assert len(shop.store.list_versions("m")) == 1
        assert shop.store.list_releases("m") == [1]
        assert shop.train("m", allow_signature_change=True).gate is not None

    @pytest.mark.costly
    def test_keeps_the_kinds_of_empty_columns(self, shop: Workshop) -> None:
        rows = [(size, "", "", "", y) for size, _, _, _, y in samples.rows(samples.text)]
        shop.put_rows("m", samples.HEADER, rows)

        kinds = [column.kind for column in shop.manifest(shop.train("m")).signature.columns]

        assert kinds == ["number", "boolean", "text", "number"]

    def test_names_a_different_target(self, shop: Workshop) -> None:
        with pytest.raises(DataError, match="the target was 'y' and is 'colour'"):
            shop.train("m", target="colour")


@pytest.fixture(scope="module")
def failed_once(
    released: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, Result]:
    """Runs a training with the key `drop-1` that fails, on data unrelated to its target."""
    shop = released.copy(tmp_path_factory.mktemp("failed") / "shop")
    spoil(shop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_HOME", str(shop.home))
        return shop, run("m", "--release", "--once", "drop-1", "--json")


@pytest.fixture
def failed(
    failed_once: tuple[Workshop, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workshop:
    """Copies the state folder of the training that failed; commands find it."""
    shop = failed_once[0].copy(tmp_path / "failed")
    monkeypatch.setenv("TOLLGATE_HOME", str(shop.home))
    return shop


@pytest.mark.costly
class TestGate:
    def test_shows_why_it_failed(self, failed_once: tuple[Workshop, Result]) -> None:
        _, result = failed_once

        outcome = json.loads(result.stdout)
        assert result.exit_code == 1
        assert (outcome["gate"], outcome["release"]) == ("failed", None)
        assert "baseline" in " ".join(outcome["reasons"])
        assert "live version" in result.stderr
        assert "baseline" in result.stderr
        assert "balanced_accuracy" in result.stderr

    def test_may_be_forced_for_a_reason_that_is_kept(self, shop: Workshop) -> None:
        spoil(shop)

        assert run("m", "--force").exit_code == 2
        why = "an audit requires this version, and its full explanation is longer than one line"
        result = run("m", "--release", "--force", "--reason", why)

        release = shop.store.find_release("m", 2)
        assert result.exit_code == 0
        assert release is not None
        assert release.reason == why
        manifest = shop.store.open_version("m", release.version, shop.trusted)
        assert (manifest.gate, manifest.forced_reason) == ("forced", why)
        report = shop.store.read_file(manifest, "report.html").decode()
        assert f"was forced: {why}" in report


class TestRepeat:
    def test_of_a_failed_run_reports_the_failure_and_exits_1(self, failed: Workshop) -> None:
        shop, versions = failed, failed.store.list_versions("m")

        again = run("m", "--release", "--once", "drop-1")
        as_json = run("m", "--release", "--once", "drop-1", "--json")

        outcome = json.loads(as_json.stdout)
        assert (again.exit_code, as_json.exit_code) == (1, 1)
        assert "has already finished: gate failed" in again.stdout
        assert "error: " in again.stderr
        assert (outcome["gate"], outcome["repeated"]) == ("failed", True)
        assert shop.store.list_versions("m") == versions
        assert shop.store.list_releases("m") == [1]

    @pytest.mark.costly
    def test_of_a_released_run_reports_its_release_and_exits_0(self, shop: Workshop) -> None:
        first = run("m", "--release", "--once", "drop-1")
        again = run("m", "--release", "--once", "drop-1")

        assert (first.exit_code, again.exit_code) == (0, 0)
        assert "has already finished: gate passed, live as release 2" in again.stdout

    def test_of_a_run_with_an_older_record_reads_the_gate_of_its_version(
        self, failed: Workshop
    ) -> None:
        [*_, version] = failed.store.list_versions("m")
        failed.store.record_run("m", "drop-2", RunRecord(version=version))

        again = run("m", "--once", "drop-2")

        assert again.exit_code == 1
        assert "gate failed" in again.stdout


class TestPinned:
    @pytest.mark.costly
    def test_a_training_run_publishes_but_reports_that_it_did_not_release(
        self, shop: Workshop
    ) -> None:
        live = only(shop).version
        pinned = CliRunner().invoke(models, ["pin", "m", live, "--reason", "audit"])

        result = run("m", "--release", "--once", "drop-1")
        again = run("m", "--release", "--once", "drop-1")

        record = shop.store.live_release("m", shop.trusted)
        assert record is not None
        assert (pinned.exit_code, result.exit_code, again.exit_code) == (0, 0, 0)
        assert "gate passed, published, not released" in result.stdout
        for each in (result, again):
            assert f"not released: Model 'm' is pinned to version {live}" in each.stderr
        assert (len(shop.store.list_versions("m")), record.version) == (2, live)


@pytest.fixture(scope="module")
def blind(released: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, Outcome]:
    """Trains a version of `m` without an ONNX form, which inference refuses, for release."""
    shop = released.copy(tmp_path_factory.mktemp("blind") / "shop")
    shop.put("m", '{"estimators": ["categorical_boosting"]}', name="dataset.json")
    return shop, shop.train("m", release=True)


@pytest.fixture
def pickled(
    blind: tuple[Workshop, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Workshop, Outcome]:
    """Copies a state folder with a version that inference refuses; commands find it."""
    workshop, outcome = blind
    shop = workshop.copy(tmp_path / "pickled")
    monkeypatch.setenv("TOLLGATE_HOME", str(shop.home))
    return shop, outcome


class TestServing:
    @pytest.mark.costly
    def test_a_version_without_onnx_is_released_only_if_inference_serves_pickles(
        self, pickled: tuple[Workshop, Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop, blind = pickled
        manifest = shop.manifest(blind)
        monkeypatch.setenv("TRAINER_ALLOW_JOBLIB", "true")
        allowed = shop.settings.model_copy(update={"allow_joblib": True})
        first = Workshop(shop.home, allowed).train("m", release=True)
        seeing = Workshop(shop.home, allowed).train("m")

        assert manifest.serving == "joblib"
        assert set(manifest.files) == {"explainer.npz", "model.joblib", "report.html"}
        assert (blind.gate, blind.release, blind.is_failure) == ("passed", None, True)
        assert "refused by inference: joblib not allowed" in str(blind.refused)
        assert (first.release, first.is_failure) == (2, False)
        assert seeing.metrics["live"]["log_loss"] == seeing.metrics["candidate"]["log_loss"]

    @pytest.mark.costly
    def test_a_version_that_inference_refuses_exits_1_and_is_listed_as_refused(
        self, shop: Workshop
    ) -> None:
        shop.put("m", '{"estimators": ["categorical_boosting"]}', name="dataset.json")
        before = shop.store.live_release("m", shop.trusted)

        result = run("m", "--release", "--once", "drop-7")
        again = run("m", "--release", "--once", "drop-7")

        listed = CliRunner().invoke(models, ["list", "m"])
        [*_, last] = [line for line in listed.stdout.splitlines() if line.startswith("m ")]
        assert (result.exit_code, again.exit_code) == (1, 1)
        for each in (result, again):
            assert "refused by inference: joblib not allowed" in each.stdout
            assert [line for line in each.stderr.splitlines() if line.startswith("error: ")]
        assert last.endswith("refused by inference: joblib not allowed")
        assert "live" not in last
        assert shop.store.live_release("m", shop.trusted) == before

    def test_no_command_releases_a_pickle_that_inference_refuses(
        self, pickled: tuple[Workshop, Outcome]
    ) -> None:
        shop, outcome = pickled
        version = outcome.version

        for words in (
            ("release", "m", "--to", version),
            ("rollback", "m", "--to", version),
            ("canary", "m", "--to", version, "--percent", "10"),
            ("pin", "m", version, "--reason", "x"),
        ):
            result = CliRunner().invoke(models, list(words))

            assert result.exit_code == 1
            assert "refused by inference: joblib not allowed" in result.stderr
        assert shop.store.list_releases("m") == [1]
        assert shop.store.list_pins("m") == []

    @pytest.mark.costly
    def test_a_candidate_with_an_onnx_form_is_preferred(self, shop: Workshop) -> None:
        shop.put("m", '{"estimators": ["categorical_boosting", "linear"]}', name="dataset.json")

        outcome = shop.train("m")

        assert (outcome.serving, outcome.metrics["chosen"]) == ("onnx", "linear")


class TestReport:
    @pytest.mark.costly
    def test_shows_the_changes_since_the_live_version(self, shop: Workshop) -> None:
        rows = [
            (*row[:-1], "giant" if i % 9 == 0 else row[-1])
            for i, row in enumerate(samples.rows(samples.text))
        ]
        shop.put_rows("m", samples.HEADER, rows)
        live = only(shop)

        manifest = shop.manifest(shop.train("m", allow_signature_change=True))

        page = shop.store.read_file(manifest, "report.html").decode()
        assert live.version in page
        assert "class &#39;giant&#39; is new" in page


class TestDatasetConfig:
    def test_the_card_is_part_of_the_signed_manifest(self, shop: Workshop) -> None:
        assert only(shop).card == Card.model_validate(CARD)

    @pytest.mark.costly
    def test_a_misspelled_field_is_an_error_and_an_unknown_one_a_warning(
        self, shop: Workshop
    ) -> None:
        shop.put("m", '{"grup": "colour"}', name="dataset.json")
        with pytest.raises(DataError, match="unknown field 'grup'; did you mean 'group'"):
            shop.train("m")

        shop.put("m", '{"owner": "ada", "estimators": ["linear"]}', name="dataset.json")
        assert shop.train("m").warnings == ["dataset.json: unknown field 'owner'."]

    @pytest.mark.costly
    def test_ignored_columns_are_not_features(self, shop: Workshop) -> None:
        shop.put("m", '{"ignore": ["sold", "void"], "estimators": ["linear"]}', "dataset.json")

        signature = shop.manifest(shop.train("m", allow_signature_change=True)).signature

        assert [column.name for column in signature.columns] == ["size", "colour"]
