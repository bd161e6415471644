"""Whole training runs on small data: published versions predict as recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from registry.records import Manifest
from tests.integration.trainer import samples
from tests.integration.trainer.conftest import Workshop, new_workshop
from trainer.errors import DataError

TARGETS = {
    "text": (samples.text, ["big", "small"]),
    "boolean": (samples.boolean, [False, True]),
    "integer": (samples.integer, [1, 2, 3]),
    "value": (samples.value, None),
    "every-family": (samples.integer, [1, 2, 3]),
}
FULLY_SEARCHED = ("every-family", "value")
"""A classification and a regression for which every family is tried."""


@pytest.fixture(
    scope="module",
    params=[
        # The sample model, which many tests start with, is a classification searched as fully.
        pytest.param(name, marks=[pytest.mark.slow] if name == "every-family" else [])
        for name in TARGETS
    ],
)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, Manifest]:
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    answer, _ = TARGETS[request.param]
    workshop.put_rows(request.param, samples.HEADER, samples.rows(answer))
    if request.param not in FULLY_SEARCHED:
        workshop.configure(request.param)
    outcome = workshop.train(request.param, target="y", release=True)
    assert (outcome.gate, outcome.release) == ("passed", 1)
    return workshop, workshop.manifest(outcome)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Creates purely numeric data with classes 1 to 3 that depend on `size`."""
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    rows = [(a, b, y) for a, _, _, b, y in samples.rows(samples.integer) if a]
    workshop.put_rows("plain", ["size", "void", "y"], rows)
    workshop.configure("plain", target="y")
    return workshop


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    workshop.put_rows("m", samples.HEADER, samples.rows(samples.text))
    workshop.configure("m")
    assert workshop.train("m", target="y", release=True).release == 1
    return workshop


def run(workshop: Workshop, manifest: Manifest, rows: list[list[Any]]) -> list[Any]:
    """Predicts rows as inference does: from only the signature and the ONNX file."""
    session = onnxruntime.InferenceSession(workshop.store.read_file(manifest, "model.onnx"))
    feeds: dict[str, Any] = {}
    for i, column in enumerate(manifest.signature.columns):
        cells = [row[i] for row in rows]
        if column.kind == "text":
            array = np.array([cell or "" for cell in cells], dtype=object)
        else:
            array = np.array([np.nan if c is None else c for c in cells], dtype=np.float32)
        feeds[f"column_{i}"] = array.reshape(-1, 1)
    if all(column.kind != "text" for column in manifest.signature.columns):
        feeds = {"features": np.hstack(list(feeds.values()))}
    return list(session.run(None, feeds))


class TestVersion:
    @pytest.mark.costly
    def test_the_signature_has_kinds_and_classes(self, trained: tuple[Workshop, Manifest]) -> None:
        _, manifest = trained
        kinds = [column.kind for column in manifest.signature.columns]
        classes = TARGETS[manifest.model][1]

        assert kinds == ["number", "boolean", "text", "number"]
        assert manifest.signature.classes == classes
        assert list(map(type, manifest.signature.classes or [])) == list(map(type, classes or []))

    def test_the_warm_up_predictions_are_reproduced(
        self, trained: tuple[Workshop, Manifest]
    ) -> None:
        workshop, manifest = trained

        first, *others = run(workshop, manifest, manifest.warm_up.rows)

        if manifest.warm_up.probabilities is None:
            assert first.reshape(-1).tolist() == manifest.warm_up.predictions
        else:
            assert first.tolist() == manifest.warm_up.predictions
            assert others[0].tolist() == manifest.warm_up.probabilities

    def test_null_and_unseen_text_are_accepted_in_every_column(
        self, trained: tuple[Workshop, Manifest]
    ) -> None:
        workshop, manifest = trained
        whole = [5.0, True, "red", 1.0]
        rows = [[None if i == j else cell for j, cell in enumerate(whole)] for i in range(4)]
        rows += [[None] * 4, [5.0, True, "never seen", 1.0]]

        outputs = run(workshop, manifest, rows)

        assert np.isfinite(outputs[-1]).all()
        assert len(outputs[-1]) == len(rows)
        if manifest.signature.classes is not None:
            assert outputs[1].shape == (len(rows), len(manifest.signature.classes))
            assert np.allclose(outputs[1].sum(axis=1), 1, atol=1e-5)

    def test_everything_a_version_needs_is_in_its_folder(
        self, trained: tuple[Workshop, Manifest]
    ) -> None:
        workshop, manifest = trained

        assert set(manifest.files) == {
            "explainer.npz",
            "model.onnx",
            "model.joblib",
            "report.html",
        }
        report = workshop.store.read_file(manifest, "report.html").decode()
        assert manifest.version in report
        assert "http" not in report
        assert manifest.environment["scikit-learn"]
        assert str(workshop.home) not in manifest.model_dump_json()


@pytest.mark.costly
class TestNumbersOnly:
    def test_a_model_without_text_has_one_input(self, shop: Workshop) -> None:
        manifest = shop.manifest(shop.train("plain"))

        labels, probabilities = run(shop, manifest, [[1.0, None], [9.0, 5.0], [None, None]])

        assert labels[:2].tolist() == [1, 3]
        assert probabilities.shape == (3, 3)

    def test_the_same_data_and_seed_make_the_same_model(
        self, shop: Workshop, tmp_path: Path
    ) -> None:
        shop = shop.copy(tmp_path / "random")
        shop.configure("plain", target="y", estimators=["random_forest"])

        first, second = (shop.manifest(shop.train("plain")) for _ in range(2))

        assert first.version != second.version
        assert first.files["model.onnx"] == second.files["model.onnx"]
        assert first.metrics["candidate"] == second.metrics["candidate"]

    def test_a_repeated_key_does_nothing(self, shop: Workshop) -> None:
        first = shop.train("plain", idempotency_key="drop-1")
        versions = shop.store.list_versions("plain")

        again = shop.train("plain", idempotency_key="drop-1", release=True)

        assert (again.version, again.gate, again.release) == (first.version, first.gate, None)
        assert again.repeated
        assert shop.store.list_versions("plain") == versions
        assert shop.store.list_releases("plain") == []


@pytest.mark.costly
class TestGate:
    @pytest.fixture
    def released(self, trained_once: Workshop, tmp_path: Path) -> Workshop:
        """Copies a state folder in which `m` is live."""
        return trained_once.copy(tmp_path / "copy")

    def test_a_candidate_as_good_as_the_live_version_passes(self, released: Workshop) -> None:
        outcome = released.train("m", release=True)

        assert (outcome.gate, outcome.release) == ("passed", 2)
        assert outcome.metrics["live"]["log_loss"] == outcome.metrics["candidate"]["log_loss"]

    def test_a_useless_candidate_is_published_but_not_released(self, released: Workshop) -> None:
        labels = [row[-1] for row in samples.rows(samples.text, seed=2)]
        noise = [(*row[:-1], y) for row, y in zip(samples.rows(samples.text), labels, strict=True)]
        released.put_rows("m", samples.HEADER, noise)

        outcome = released.train("m", release=True)

        assert (outcome.gate, outcome.release) == ("failed", None)
        assert "baseline" in outcome.reasons[0]
        assert released.manifest(outcome).gate == "failed"
        assert released.store.list_releases("m") == [1]

    def test_a_live_version_with_other_columns_is_still_compared(self, released: Workshop) -> None:
        rows = [("x", *row) for row in samples.rows(samples.text)]
        released.put_rows("m", ["extra", *samples.HEADER], rows)

        outcome = released.train("m", release=True, allow_signature_change=True)

        assert outcome.gate == "passed"
        assert outcome.metrics["live"]["note"] is None
        assert outcome.metrics["live"]["accuracy"] > 0.5

    def test_a_corrupted_live_model_does_not_block_a_new_version(self, released: Workshop) -> None:
        [file] = released.home.glob("models/m/versions/*/model.onnx")
        file.write_bytes(b"x")

        outcome = released.train("m", release=True)

        assert outcome.release == 2
        assert "does not match its signed digest" in outcome.metrics["live"]["note"]


class TestDatasetConfig:
    @pytest.mark.costly
    def test_a_task_and_metric_may_be_configured(self, workshop: Workshop) -> None:
        workshop.put_rows("m", samples.HEADER, samples.rows(samples.integer))
        workshop.configure("m", target="y", task="regression", metric="mae", owner="ada")

        manifest = workshop.manifest(workshop.train("m"))

        assert manifest.signature.task == "regression"
        assert manifest.metrics["metric"] == "mae"

    @pytest.mark.costly
    def test_parts_are_combined(self, workshop: Workshop) -> None:
        rows = samples.rows(samples.text)
        workshop.put_rows("m", samples.HEADER, rows[:60])
        first = (workshop.home / "data/m/part.csv").read_bytes()
        workshop.put_rows("m", samples.HEADER, rows[60:])
        workshop.put("m", first, name="earlier.csv")
        workshop.configure("m")

        manifest = workshop.manifest(workshop.train("m", target="y"))

        assert [part.name for part in manifest.data] == ["earlier.csv", "part.csv"]
        assert sum(manifest.metrics["rows"].values()) == 200

    @pytest.mark.costly
    def test_a_class_of_one_row_is_known_to_the_model(self, workshop: Workshop) -> None:
        rows = [*samples.rows(samples.text), (1, "true", "red", "", "unique")]
        workshop.put_rows("m", samples.HEADER, rows)
        workshop.configure("m", estimators=["linear", "boosting"])

        manifest = workshop.manifest(workshop.train("m", target="y"))

        assert manifest.signature.classes == ["big", "small", "unique"]

    def test_the_first_version_needs_a_target(self, workshop: Workshop) -> None:
        workshop.put_rows("m", samples.HEADER, samples.rows(samples.text))

        with pytest.raises(DataError, match="No target: use --target"):
            workshop.train("m")

        assert workshop.store.list_versions("m") == []

    @pytest.mark.costly
    def test_balanced_classes_have_equal_weight(self, workshop: Workshop) -> None:
        chance = np.random.default_rng(0)
        rows = [(round(x, 3), int(x + chance.normal() > 2.2)) for x in chance.normal(size=600)]
        workshop.put_rows("m", ["x", "y"], rows)
        recalls = {}
        for weight in ("null", '"balanced"'):
            document = f'{{"target": "y", "estimators": ["linear"], "class_weight": {weight}}}'
            workshop.put("m", document, name="dataset.json")
            recalls[weight] = workshop.train("m").metrics["candidate"]["balanced_accuracy"]

        assert recalls['"balanced"'] > recalls["null"] + 0.03

    def test_data_beyond_the_limit_is_refused_before_it_is_read(self, workshop: Workshop) -> None:
        part: Path = workshop.home / "data/m/part.csv"
        workshop.put("m", "a,y\n")
        with part.open("r+b") as file:
            file.truncate(2 * 1024**3)  # sparse: no disk is used

        with pytest.raises(DataError, match="2,147,483,648 bytes; TRAINER_MAX_DATA_BYTES allows"):
            workshop.train("m", target="y")
