"""The rivals: how each is called, in the request format that is native to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Rows = Sequence[Sequence[float]]
Engine = Literal["scikit-learn", "ONNX"]


@dataclass(frozen=True, slots=True)
class Format:
    """A request format.

    Args:
        body: returns the JSON of a request for rows.
        labels: returns the predicted labels in the JSON of its response.
    """

    path: str
    body: Callable[[Rows], Any]
    labels: Callable[[Any], list[Any]]


@dataclass(frozen=True, slots=True)
class Rival:
    """A server to compare with.

    Args:
        folder: of its app and its requirements, and the name of its environment.
        package: the one whose version identifies it.
        engine: what computes the predictions.
        batching: whether it combines concurrent requests.
    """

    folder: str
    package: str
    title: str
    format: Format = field(repr=False)
    engine: Engine = "scikit-learn"
    batching: bool = False

    @property
    def name(self) -> str:
        """Return a readable name, such as `BentoML, batching (scikit-learn)`."""
        return f"{self.title}{', batching' if self.batching else ''} ({self.engine})"


def _tensor(rows: Rows) -> dict[str, Any]:
    return {
        "name": "features",
        "datatype": "FP32",
        "shape": [len(rows), len(rows[0])],
        "data": [value for row in rows for value in row],
    }


_KSERVE = Format(
    "/v1/models/model:predict",
    lambda rows: {"instances": rows},
    lambda answer: answer["predictions"],
)
_MLSERVER = Format(
    "/v2/models/model/infer",
    lambda rows: {"inputs": [_tensor(rows)]},
    lambda answer: answer["outputs"][0]["data"],
)
_BENTOML = Format("/predict", lambda rows: {"rows": rows}, lambda answer: answer)
_LITSERVE = Format("/predict", lambda rows: {"row": rows[0]}, lambda answer: answer["predictions"])
_MLFLOW = Format(
    "/invocations", lambda rows: {"inputs": rows}, lambda answer: answer["predictions"]
)
_RAY = Format("/", lambda rows: {"instances": rows}, lambda answer: answer["predictions"])
_FLASK = Format("/predict", lambda rows: {"instances": rows}, lambda answer: answer["predictions"])

RIVALS = (
    Rival("kserve", "kserve", "KServe", _KSERVE, "ONNX"),
    Rival("kserve", "kserve", "KServe", _KSERVE),
    Rival("mlserver", "mlserver", "MLServer", _MLSERVER, batching=True),
    Rival("mlserver", "mlserver", "MLServer", _MLSERVER),
    Rival("bentoml", "bentoml", "BentoML", _BENTOML, "ONNX", batching=True),
    Rival("bentoml", "bentoml", "BentoML", _BENTOML, batching=True),
    Rival("bentoml", "bentoml", "BentoML", _BENTOML),
    Rival("litserve", "litserve", "LitServe", _LITSERVE, "ONNX"),
    Rival("litserve", "litserve", "LitServe", _LITSERVE, batching=True),
    Rival("litserve", "litserve", "LitServe", _LITSERVE),
    Rival("flask", "flask", "Flask, gunicorn", _FLASK),
    Rival("mlflow", "mlflow", "MLflow", _MLFLOW),
    Rival("ray", "ray", "Ray Serve", _RAY, batching=True),
)
