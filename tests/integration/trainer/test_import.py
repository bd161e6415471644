"""Finished models of other tools become versions that predict as the originals do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.cluster import KMeans
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from registry.features import join_columns
from registry.records import Manifest
from registry.runtimes.onnx import OnnxRuntime
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import load_pickled
from registry.storage.filesystems import open_filesystem
from tests.integration.trainer import finished_models
from tests.integration.trainer.conftest import Workshop, new_workshop
from trainer.errors import TrainerError
from trainer.import_model import import_model
from trainer.outcome import Outcome

NUMBERS = finished_models.NAMES
TEXT = ("joblib with text", "onnx with text")
EXPLAINERS = {
    "joblib": "linear",
    "joblib with text": "linear",
    "cloudpickle": "linear",
    "onnx": "sampled",
    "onnx with text": "sampled",
    "onnx of a regression": "sampled",
    "mlflow sklearn": "linear",
    "mlflow skops": "linear",
    "mlflow onnx": "sampled",
}
"""How versions of models other than trees are explained; those of ONNX files are sampled."""


def put_data(workshop: Workshop, name: str, *, model: str = "m") -> None:
    """Store the data that a finished model was fitted on."""
    columns = [*finished_models.NAMES, *(["colour"] if name in TEXT else [])]
    table = finished_models.data()[[*columns, finished_models.TARGETS[name]]]
    workshop.put(model, table.to_csv(index=False))
    workshop.configure(model, target=finished_models.TARGETS[name])


def bring(workshop: Workshop, path: Path, **options: Any) -> Outcome:
    return import_model(workshop.settings, "m", path, **options)


def load(workshop: Workshop, manifest: Manifest) -> Runtime:
    """Load a version as inference does."""
    if manifest.serving == "onnx":
        content = workshop.store.read_file(manifest, "model.onnx")
        return OnnxRuntime(content, manifest.signature)
    return load_pickled(workshop.store.read_file(manifest, "model.joblib"), manifest)


def answer(runtime: Runtime, manifest: Manifest, table: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of class 1, or the values, for a table's rows."""
    arrays = []
    for column in manifest.signature.columns:
        kind = object if column.kind == "text" else np.float32
        arrays.append(table[column.name].to_numpy(kind).reshape(-1, 1))
    is_text = any(column.kind == "text" for column in manifest.signature.columns)
    inputs = join_columns(arrays, one_matrix=not is_text)
    is_classifier = manifest.signature.classes is not None
    response = runtime.run(inputs, probabilities=is_classifier)
    return np.array(response.predictions if not is_classifier else response.probabilities)


@pytest.mark.costly
@pytest.mark.parametrize(
    "name",
    [
        # MLflow takes many seconds to import.
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("mlflow") else [])
        for name in finished_models.WRITERS
    ],
)
def test_a_finished_model_passes_the_gate_and_predicts_the_same(
    name: str, workshop: Workshop, tmp_path: Path
) -> None:
    path = finished_models.write(name, tmp_path)
    put_data(workshop, name)
    workshop = replace(
        workshop, settings=workshop.settings.model_copy(update={"allow_joblib": True})
    )

    is_pickle = path.suffix in (".joblib", ".pkl") or name == "mlflow sklearn"
    outcome = bring(workshop, path, trust_pickle=is_pickle, release=True)

    assert (outcome.gate, outcome.release) == ("passed", 1), outcome.reasons
    manifest = workshop.manifest(outcome)
    assert manifest.origin is not None
    assert manifest.origin.kind == "import"
    assert manifest.serving == ("joblib" if name == "cloudpickle" else "onnx"), outcome.metrics[
        "candidates"
    ]
    assert manifest.explainer == EXPLAINERS.get(name, "trees")
    assert manifest.calibration is not None
    truth = finished_models.data()
    outputs = answer(load(workshop, manifest), manifest, truth)
    if manifest.signature.classes is None:
        assert np.abs(outputs - truth["price"]).mean() < 25
    else:
        assert (outputs.argmax(axis=1) == truth["kind"]).mean() > 0.9


@pytest.mark.costly
def test_an_mlflow_folder_names_the_columns_of_a_model_without_names(
    workshop: Workshop, tmp_path: Path
) -> None:
    finished_models.write("onnx", tmp_path)
    inputs = [{"name": name, "type": "double"} for name in reversed(NUMBERS)]
    description = {
        "flavors": {"python_function": {}, "onnx": {"data": "model.onnx"}},
        "signature": {"inputs": json.dumps(inputs)},
    }
    (tmp_path / "MLmodel").write_text(json.dumps(description))
    put_data(workshop, "onnx")

    manifest = workshop.manifest(bring(workshop, tmp_path))

    assert [column.name for column in manifest.signature.columns] == NUMBERS[::-1]
    assert manifest.origin is not None
    assert manifest.origin.model_dump(include={"format", "mlflow"}) == {
        "format": "onnx",
        "mlflow": True,
    }


@pytest.mark.costly
@pytest.mark.parametrize(
    ("model", "refused"), [(LinearRegression(), "'size', 'age', 'noise'"), (DummyRegressor(), "")]
)
def test_columns_that_take_no_missing_value_are_named(
    model: Any, refused: str, workshop: Workshop, tmp_path: Path
) -> None:
    path = _dumped(tmp_path, _fitted(model, *NUMBERS, labels=finished_models.data()["price"]))
    put_data(workshop, "skops")

    outcome = bring(workshop, path, trust_pickle=True)

    found = [note for note in outcome.notes if "does not take missing values" in note]
    assert len(found) == bool(refused)
    assert all(f"missing values in {refused}: a request with null" in note for note in found)


@pytest.mark.costly
def test_a_model_is_imported_into_a_bucket(
    workshop: Workshop, bucket_url: str, tmp_path: Path
) -> None:
    settings = workshop.settings.model_copy(
        update={"model_store": f"{bucket_url}/models", "data_store": f"{bucket_url}/data"}
    )
    put_data(workshop, "xgboost ubj")
    filesystem, bucket = open_filesystem(bucket_url)
    for file in (workshop.home / "data/m").iterdir():
        filesystem.pipe_file(f"{bucket}/data/m/{file.name}", file.read_bytes())
    workshop = replace(workshop, settings=settings)

    outcome = bring(workshop, finished_models.write("xgboost ubj", tmp_path), release=True)

    assert (outcome.gate, outcome.release) == ("passed", 1)
    manifest = workshop.manifest(outcome)
    assert {"model.onnx", "imported.ubj", "explainer.npz"} <= set(manifest.files)
    assert all(each.generation for each in manifest.data)
    truth = finished_models.data()
    outputs = answer(load(workshop, manifest), manifest, truth)
    assert (outputs.argmax(axis=1) == truth["kind"]).mean() > 0.9


def _external(folder: Path) -> Path:
    model = onnx.load(_graph(folder, shape=[None, 3]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1000), "weights"))
    path = folder / "external.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, location="weights")
    return path


def _graph(folder: Path, *, shape: list[int | None], domain: str = "") -> Path:
    """Write a graph of one operator."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    node = helper.make_node("Magic" if domain else "Identity", ["x"], ["y"], domain=domain)
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(domain or "ai.onnx.ml", 3)],
        ir_version=10,
    )
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    return folder / "graph.onnx"


def _file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _truncated(folder: Path, name: str) -> Path:
    path = finished_models.write(name, folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _dumped(folder: Path, model: Any) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(cloudpickle.dumps(model))
    return path


def _mlflow(folder: Path, description: str) -> Path:
    (folder / "run").mkdir()
    (folder / "run/MLmodel").write_text(description)
    return folder / "run"


def _fitted(model: Any, *columns: str, labels: Any = None) -> Any:
    table = finished_models.data()
    return model.fit(table[list(columns)], table["kind"] if labels is None else labels)


class _Quits:
    def __reduce__(self) -> Any:
        return exit, (3,)


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "onnx with external data": (_external, "keeps its weights in another file"),
    "onnx with custom operators": (
        lambda folder: _graph(folder, shape=[None, 3], domain="acme"),
        "uses custom operators, which inference does not have: acme.Magic",
    ),
    "onnx of images": (
        lambda folder: _graph(folder, shape=[None, 3, 8, 8]),
        "no usable input: 'x' must have the shape [rows, columns], not 4 dimensions",
    ),
    "onnx for one row": (
        lambda folder: _graph(folder, shape=[1, 3]),
        "no usable input: 'x' takes exactly 1 rows",
    ),
    "onnx with other columns": (
        lambda folder: _graph(folder, shape=[None, 5]),
        "is for classification, but the target 'price' is for regression",
    ),
    "truncated onnx": (lambda folder: _truncated(folder, "onnx"), "is not an ONNX model"),
    "truncated joblib": (lambda folder: _truncated(folder, "joblib"), "cannot be loaded"),
    "truncated skops": (lambda folder: _truncated(folder, "skops"), "skops file is damaged"),
    "truncated lightgbm": (lambda folder: _truncated(folder, "lightgbm"), "it is truncated"),
    "text as xgboost": (
        lambda folder: _file(folder, "model.json", b'{"a": 1}'),
        "XGBoost cannot load it",
    ),
    "unknown extension": (lambda folder: _file(folder, "model.h5", b"HDF"), "unknown file type"),
    "empty file": (lambda folder: _file(folder, "model.onnx", b""), "is empty"),
    "missing file": (lambda folder: folder / "model.onnx", "No such file or directory"),
    "folder without MLmodel": (lambda folder: folder, "is not an MLflow model"),
    "mlflow of another flavour": (
        lambda folder: _mlflow(folder, "flavors: {spark: {data: x}, python_function: {}}"),
        "has the flavours python_function, spark; Tollgate imports sklearn, onnx",
    ),
    "mlflow that leaves its folder": (
        lambda folder: _mlflow(folder, "flavors: {onnx: {data: ../../model.onnx}}"),
        "names a file outside the folder",
    ),
    "mlflow that is malformed": (lambda folder: _mlflow(folder, "- ["), "MLmodel cannot be read"),
    "pickle of a dictionary": (lambda folder: _dumped(folder, {}), "contains a dict"),
    "pickle that quits": (lambda folder: _dumped(folder, _Quits()), "it called sys.exit"),
    "clusterer": (
        lambda folder: _dumped(folder, _fitted(KMeans(2), *NUMBERS)),
        "a KMeans is neither a classifier nor a regressor",
    ),
    "classifier for a regression": (
        lambda folder: _dumped(folder, _fitted(LogisticRegression(), *NUMBERS)),
        "The model is for classification, but the target 'price' is for regression",
    ),
    "missing columns": (
        lambda folder: _dumped(
            folder,
            _fitted(LinearRegression(), *NUMBERS, "kind", labels=finished_models.data()["price"]),
        ),
        "The data lacks columns of the model: 'kind'",
    ),
    "more columns": (
        lambda folder: _dumped(folder, _fitted(LinearRegression(), "size")),
        "has columns that the model does not take: 'age', 'noise'",
    ),
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A live model of prices."""
    workshop = new_workshop(tmp_path_factory.mktemp("home"))
    put_data(workshop, "skops")
    assert workshop.train("m", release=True).release == 1
    return workshop


class TestBadModel:
    @pytest.mark.parametrize("fault", BAD)
    def test_is_refused_in_one_line_and_publishes_nothing(
        self, fault: str, live: Workshop, tmp_path: Path
    ) -> None:
        make, expected = BAD[fault]
        path = make(tmp_path)

        with pytest.raises(TrainerError) as failure:
            bring(live, path, trust_pickle=True)

        assert expected in str(failure.value)
        assert "\n" not in str(failure.value)
        assert len(live.store.list_versions("m")) == len(live.store.list_releases("m")) == 1

    @pytest.mark.parametrize("name", ["joblib", "cloudpickle"])
    def test_of_a_pickle_is_not_opened_without_trust(
        self, name: str, live: Workshop, tmp_path: Path
    ) -> None:
        path = finished_models.write(name, tmp_path)

        with pytest.raises(TrainerError, match="use --trust-pickle"):
            bring(live, path)

    def test_whose_archive_unpacks_to_too_much_is_not_opened(
        self, live: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainer.importing.estimators.MAX_MODEL_BYTES", 100)

        with pytest.raises(TrainerError, match=r"unpacks to .* bytes; the maximum is 100"):
            bring(live, finished_models.write("skops", tmp_path))

    def test_with_other_classes_is_refused(self, workshop: Workshop, tmp_path: Path) -> None:
        labels = finished_models.data()["kind"].map({0: "no", 1: "yes"})
        path = _dumped(tmp_path, _fitted(LogisticRegression(), *NUMBERS, labels=labels))
        put_data(workshop, "joblib")

        with pytest.raises(TrainerError, match="differ from the data's: 'no', 'yes', but 0, 1"):
            bring(workshop, path, trust_pickle=True)

    @pytest.mark.costly
    def test_that_predicts_nan_is_refused(self, live: Workshop, tmp_path: Path) -> None:
        model = _fitted(LinearRegression(), *NUMBERS, labels=finished_models.data()["price"])
        model.coef_[:] = np.nan

        with pytest.raises(TrainerError, match="The model predicts NaN or infinity"):
            bring(live, _dumped(tmp_path, model), trust_pickle=True)

        assert len(live.store.list_versions("m")) == len(live.store.list_releases("m")) == 1


class TestWithoutData:
    def test_the_gate_fails_and_says_what_it_could_check(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        path = finished_models.write("joblib", tmp_path)

        outcome = bring(workshop, path, target="kind", trust_pickle=True, release=True)

        assert (outcome.gate, outcome.release) == ("failed", None)
        assert "There is no data to judge the model on" in outcome.reasons[0]

    def test_a_reason_can_force_it(self, workshop: Workshop, tmp_path: Path) -> None:
        path = finished_models.write("joblib", tmp_path)

        outcome = bring(
            workshop, path, target="kind", trust_pickle=True, release=True, force=True, reason="ok"
        )

        manifest = workshop.manifest(outcome)
        assert (outcome.gate, outcome.release, manifest.forced_reason) == ("forced", 1, "ok")
        assert [column.name for column in manifest.signature.columns] == NUMBERS

    def test_a_model_must_name_its_columns(self, workshop: Workshop, tmp_path: Path) -> None:
        path = finished_models.write("onnx", tmp_path)

        with pytest.raises(TrainerError, match="does not name its columns"):
            bring(workshop, path, target="kind")
