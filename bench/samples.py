"""The measured models: the platform's own sample, and a random forest; and requests to them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
from sklearn.datasets import make_classification

from bench import load
from harness.platform import Platform
from harness.samples import WINE

FOREST = "forest"
FOREST_COLUMNS = 64
BATCH_ROWS = 256
_FOREST_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class SampleModel:
    """A live model, and rows for it.

    Args:
        folder: with `model.joblib` (scikit-learn) and `model.onnx`, its export.
    """

    name: str
    folder: Path
    rows: list[list[float]]

    @property
    def onnx(self) -> Path:
        """The file that Tollgate and the bare app serve."""
        return self.folder / "model.onnx"

    def labels(self, rows: Sequence[Sequence[float]]) -> list[Any]:
        """Return scikit-learn's predictions."""
        pipeline = joblib.load(self.folder / "model.joblib")
        labels: list[Any] = pipeline.predict(np.array(rows, np.float32)).tolist()
        return labels


def wine(platform: Platform) -> SampleModel:
    """Return the sample model of every installation."""
    return SampleModel("wine", _folder(platform, "wine"), [list(map(float, WINE))])


def forest(platform: Platform) -> SampleModel:
    """Return a random forest of 100 trees over 64 columns; the first call trains and releases it.

    Raises:
        RuntimeError: the training failed.
    """
    rows, labels = make_classification(
        _FOREST_ROWS, FOREST_COLUMNS, n_informative=20, random_state=1
    )
    rows = np.round(rows, 3)
    data = platform.home / "data" / FOREST
    if not data.exists():
        data.mkdir(parents=True)
        settings = {"target": "y", "estimators": ["random_forest"]}
        (data / "dataset.json").write_text(json.dumps(settings))
        with (data / "part.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([*(f"c{number:02}" for number in range(FOREST_COLUMNS)), "y"])
            table.writerows([*row, label] for row, label in zip(rows.tolist(), labels, strict=True))
        trained = platform.run("train", FOREST, "--release")
        if trained.returncode:
            raise RuntimeError(trained.stderr)
    return SampleModel(FOREST, _folder(platform, FOREST), rows[:BATCH_ROWS].tolist())


def json_request(
    url: str,
    model: str,
    rows: Sequence[Sequence[float]],
    *,
    token: str,
    verb: str = "predict",
    parameters: dict[str, Any] | None = None,
    **headers: str,
) -> bytes:
    """Return a request of the KServe v1 protocol."""
    document: dict[str, Any] = {"instances": rows}
    if parameters:
        document["parameters"] = parameters
    body = orjson.dumps(document)
    path = f"/v1/models/{model}:{verb}"
    return load.post(url + path, body, Authorization=f"Bearer {token}", **headers)


def binary_request(url: str, model: str, rows: Sequence[Sequence[float]], *, token: str) -> bytes:
    """Return a request of the Open Inference Protocol v2 with one binary tensor of FP32."""
    values = np.array(rows, "<f4").tobytes()
    tensor = {
        "name": "features",
        "datatype": "FP32",
        "shape": [len(rows), len(rows[0])],
        "parameters": {"binary_data_size": len(values)},
    }
    head = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "predict"}]})
    return load.post(
        f"{url}/v2/models/{model}/infer",
        head + values,
        Authorization=f"Bearer {token}",
        Content_Type="application/octet-stream",
        Inference_Header_Content_Length=str(len(head)),
    )


def _folder(platform: Platform, model: str) -> Path:
    return next((platform.home / "models" / model / "versions").iterdir())
