"""A new version's manifest and files."""

import io
import platform
from datetime import UTC, datetime
from importlib import metadata

import joblib
import numpy as np

from registry.cards import Card
from registry.records import DataObject, Manifest, WarmUp, new_version_name
from registry.runtimes.runtime import Runtime
from trainer.data.problem import Problem
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.statistics import describe
from trainer.modelling.encoding import encode, to_json
from trainer.modelling.experiment import Experiment
from trainer.modelling.search import ChosenModel
from trainer.modelling.serving import to_inputs
from trainer.releasing import Gate
from trainer.types import Indices

WARM_UP_ROWS = 5
PACKAGES = (
    "joblib",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "skl2onnx",
)


def new_manifest(
    model: str,
    experiment: Experiment,
    chosen: ChosenModel,
    evaluation: Evaluation,
    *,
    gate: Gate,
    forced_reason: str | None,
    data: list[DataObject],
    seed: int,
    commit: str | None,
    card: Card | None,
) -> Manifest:
    """Return the manifest of a new version, named after the current time.

    Args:
        forced_reason: why a failed gate was overridden.
        commit: the code's commit, if it is known.
    """
    now = datetime.now(UTC)
    problem = experiment.problem
    rows = np.flatnonzero(experiment.held_out)[:WARM_UP_ROWS]
    environment = {"python": platform.python_version()}
    environment |= {package: metadata.version(package) for package in PACKAGES}
    environment |= {"seed": str(seed)} | ({"commit": commit} if commit else {})
    return Manifest(
        model=model,
        version=new_version_name(now),
        gate=gate,
        serving="joblib" if chosen.onnx is None else "onnx",
        forced_reason=forced_reason,
        signature=problem.signature,
        metrics=evaluation.metrics,
        data=data,
        warm_up=_warm_up(problem, rows, chosen.runtime),
        environment=environment,
        files={},
        created_at=now,
        statistics=describe(problem, evaluation.outputs),
        card=card,
    )


def model_files(chosen: ChosenModel) -> dict[str, bytes]:
    """Return the model's files by name: the pickle and, if there is one, the ONNX form."""
    pickled = io.BytesIO()
    joblib.dump(chosen.pipeline, pickled)
    files = {"model.joblib": pickled.getvalue()}
    return files if chosen.onnx is None else files | {"model.onnx": chosen.onnx}


def _warm_up(problem: Problem, rows: Indices, runtime: Runtime) -> WarmUp:
    signature = problem.signature
    inputs = to_inputs(encode(problem.table, signature.columns, rows))
    response = runtime.run(inputs, probabilities=signature.classes is not None)
    return WarmUp(
        rows=to_json(problem.table, signature.columns, rows),
        predictions=response.predictions,
        probabilities=response.probabilities,
    )
