"""A new version's manifest and files."""

import io
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module, metadata

import joblib
import numpy as np

from registry.cards import Card
from registry.explain.artefact import FILE as EXPLAINER_FILE
from registry.explain.sampled import BACKGROUND_ROWS
from registry.features import Arrays
from registry.records import DataObject, Manifest, WarmUp, new_version_name
from registry.runtimes.runtime import Runtime
from trainer.data.config import BOOSTERS
from trainer.data.problem import Problem
from trainer.evaluation.calibration import calibrate
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.statistics import describe
from trainer.modelling.encoding import to_arrays, to_arrays_in_batches, to_json
from trainer.modelling.experiment import Experiment
from trainer.modelling.explaining.build import BuiltExplainer, build_explainer
from trainer.modelling.search import ChosenModel
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
    explainer: BuiltExplainer,
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
    environment = describe_environment(seed=seed, commit=commit)
    if (family := chosen.candidate.family) in BOOSTERS:
        environment[family] = str(import_module(family).__version__)
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
        explainer=explainer.kind,
        calibration=calibrate(problem.truth[experiment.held_out], evaluation.outputs),
        origin=chosen.origin,
    )


def describe_environment(*, seed: int, commit: str | None) -> dict[str, str]:
    """Return what a version was made with: Python, packages, the seed, and the code's commit."""
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
        "seed": str(seed),
        **({"commit": commit} if commit else {}),
    }


def explain_version(experiment: Experiment, chosen: ChosenModel) -> BuiltExplainer:
    """Return the explainer of a new version, proved on the held-out rows."""
    table, signature = experiment.problem.table, experiment.problem.signature

    def batches(rows: Indices) -> Iterator[Arrays]:
        return to_arrays_in_batches(table, signature, rows)

    spread = np.linspace(0, len(experiment.rows) - 1, BACKGROUND_ROWS).astype(np.int64)
    return build_explainer(
        chosen.pipeline,
        signature=signature,
        runtime=chosen.runtime,
        background=to_json(table, signature.columns, experiment.rows[np.unique(spread)]),
        training=lambda: batches(experiment.rows),
        held_out=lambda: batches(np.flatnonzero(experiment.held_out)),
    )


def model_files(chosen: ChosenModel, explainer: BuiltExplainer | None) -> dict[str, bytes]:
    """Return the files by name: the explainer, artefacts, and the pickle and ONNX form, if any."""
    files = dict(chosen.artefacts)
    if explainer is not None:
        files[EXPLAINER_FILE] = explainer.content
    if chosen.pickled is not None:
        files["model.joblib"] = chosen.pickled
    elif chosen.origin is None:
        pickled = io.BytesIO()
        joblib.dump(chosen.pipeline, pickled)
        files["model.joblib"] = pickled.getvalue()
    return files if chosen.onnx is None else files | {"model.onnx": chosen.onnx}


def _warm_up(problem: Problem, rows: Indices, runtime: Runtime) -> WarmUp:
    signature = problem.signature
    arrays = to_arrays(problem.table, signature, rows)
    response = runtime.run(arrays, probabilities=signature.classes is not None)
    return WarmUp(
        rows=to_json(problem.table, signature.columns, rows),
        predictions=response.predictions,
        probabilities=response.probabilities,
    )
