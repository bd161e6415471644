"""Every fitted model gets an explainer: an exact one if it explains what is served."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import GammaRegressor, LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.explain.artefact import load_explainer
from registry.features import Arrays
from registry.records import Column, Label, Signature
from registry.runtimes.runtime import Runtime
from registry.runtimes.scikit_learn import PipelineRuntime
from services.inference.models.inputs import Inputs
from trainer.errors import ExportError
from trainer.modelling.candidates import Candidate, TrainingContext, build
from trainer.modelling.explaining.build import BuiltExplainer, build_explainer
from trainer.modelling.export import prove_equal, to_onnx
from trainer.modelling.fitting import fit
from trainer.modelling.serving import load_onnx, to_inputs
from trainer.types import Family, Features

ROWS = 200
CHANCE = np.random.default_rng(3)
SIZE = CHANCE.uniform(0, 10, ROWS).astype(np.float32)
OTHER = np.where(CHANCE.random(ROWS) < 0.1, np.nan, CHANCE.normal(size=ROWS)).astype(np.float32)
COLOUR = CHANCE.choice(np.array(["red", "green", "blue", ""], dtype=object), ROWS)
VALUE = 3 * SIZE + 5 * (COLOUR == "red") + CHANCE.normal(size=ROWS)
GROUP = np.digitize(VALUE, [10, 22])

NUMBERS = [Column(name="size", kind="number"), Column(name="other", kind="number")]
MIXED = [*NUMBERS, Column(name="colour", kind="text")]
BACKGROUND: list[list[Any]] = [[1.0, None, "red"], [9.0, 0.5, None]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Fit on one thread, which is faster for a handful of rows."""
    with threadpool_limits(1):
        yield


def features_of(columns: list[Column]) -> Features:
    if columns is NUMBERS:
        return np.stack([SIZE, OTHER], axis=1)
    return pd.DataFrame({"column_0": SIZE, "column_1": OTHER, "column_2": COLOUR})


def signature_of(columns: list[Column], classes: list[Label] | None) -> Signature:
    task: Any = "regression" if classes is None else "classification"
    return Signature(task=task, target="y", columns=columns, classes=classes)


def serve(estimator: Any, signature: Signature, features: Features) -> Runtime:
    """Return the runtime that the trainer would choose."""
    try:
        runtime = load_onnx(to_onnx(estimator, signature), signature)
        prove_equal(runtime, estimator, features, signature)
        return runtime
    except ExportError:
        return PipelineRuntime(estimator, signature)


def explain(
    estimator: Any, runtime: Runtime, signature: Signature, features: Features
) -> tuple[BuiltExplainer, Any, Any]:
    """Build an explainer, load it as inference does, and explain what the runtime answers.

    Returns:
        The explainer, and the explained outputs and their sums.
    """
    arrays: Arrays = to_inputs(features)
    background = [row[: len(signature.columns)] for row in BACKGROUND]
    built = build_explainer(
        estimator,
        signature=signature,
        runtime=runtime,
        background=background,
        training=lambda: [arrays],
        held_out=lambda: [arrays],
    )
    explainer = load_explainer(built.content, signature, runtime, Inputs(signature).decode)
    few = {name: array[:15] for name, array in arrays.items()}
    output = runtime.compute(few, probabilities=signature.classes is not None)
    served: Any = None
    chosen = np.zeros(15, dtype=np.int64)
    if output.probabilities is None:
        served = output.predictions.astype(np.float64)
    else:
        chosen = output.probabilities.argmax(axis=1)
        served = output.probabilities[np.arange(15), chosen].astype(np.float64)
    found = explainer.explain(few, chosen, served if explainer.needs_probabilities else None)
    assert found.contributions.shape == (15, len(signature.columns))
    assert found.is_approximate == (built.kind == "sampled")
    return built, served, found.base + found.contributions.sum(axis=1)


@pytest.mark.parametrize("columns", [NUMBERS, MIXED], ids=["numbers", "text"])
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("linear", "linear"),
        ("random_forest", "trees"),
        ("boosting", "trees"),
        ("categorical_boosting", "trees"),
    ],
)
@pytest.mark.parametrize("classes", [None, ["no", "yes"], ["a", "b", "c"]])
def test_built_in_families_are_explained_exactly(
    columns: list[Column], family: Family, kind: str, classes: list[Label] | None
) -> None:
    signature = signature_of(columns, classes)
    context = TrainingContext(signature=signature, seed=1, jobs=1, balanced=False)
    features: Any = features_of(columns)
    labels: Any = VALUE
    if classes is not None:
        labels = np.array(classes, dtype=object)[np.minimum(GROUP, len(classes) - 1)]
    parameters: Any = {"max_iter": 5} if "boosting" in family else {}
    pipeline = build(Candidate(family, parameters), context, features)
    if family == "random_forest":
        pipeline[-1].set_params(n_estimators=10)
    fit(pipeline, features, labels)

    built, served, total = explain(
        pipeline, serve(pipeline, signature, features), signature, features
    )

    assert built.kind == kind
    if classes is None or family == "random_forest":
        assert total == pytest.approx(served, abs=1e-4)
    elif len(classes) == 2:
        assert 1 / (1 + np.exp(-total)) == pytest.approx(served, abs=1e-5)
    else:
        scores = pipeline.decision_function(
            features.iloc[:15] if columns is MIXED else features[:15]
        )
        assert total == pytest.approx(scores.max(axis=1), abs=1e-4)


@pytest.mark.parametrize(
    ("model", "classes", "kind"),
    [
        (RandomForestRegressor(5, random_state=0), None, "trees"),
        (LinearRegression(), None, "linear"),
        (
            make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=5)),
            [0, 1],
            "trees",
        ),
        (make_pipeline(PCA(1), LinearRegression()), None, "sampled"),
        (GammaRegressor(), None, "sampled"),
        (KNeighborsClassifier(), [0, 1, 2], "sampled"),
    ],
    ids=[
        "trees without a pipeline",
        "linear without a pipeline",
        "a pipeline of one's own",
        "columns that are mixed before the model",
        "coefficients that are not of the value itself",
        "neighbours",
    ],
)
def test_other_models_are_explained_exactly_where_possible(
    model: Any, classes: list[Label] | None, kind: str
) -> None:
    signature = signature_of(NUMBERS, classes)
    features = np.stack([SIZE, np.nan_to_num(OTHER)], axis=1)
    truth = np.maximum(VALUE, 0.1) if classes is None else np.minimum(GROUP, len(classes) - 1)
    model.fit(features, truth)

    built, served, total = explain(model, serve(model, signature, features), signature, features)

    assert built.kind == kind
    if classes is None or kind == "sampled":
        assert total == pytest.approx(served, rel=1e-5, abs=1e-5)


def test_an_estimator_that_is_not_the_served_model_is_not_believed() -> None:
    signature = signature_of(NUMBERS, None)
    features = np.stack([SIZE, np.nan_to_num(OTHER)], axis=1)
    served = LinearRegression().fit(features, VALUE)
    other = LinearRegression().fit(features, VALUE + SIZE)

    built, values, total = explain(other, serve(served, signature, features), signature, features)

    assert built.kind == "sampled"
    assert total == pytest.approx(values, abs=1e-4)


def test_a_model_without_an_estimator_is_sampled() -> None:
    signature = signature_of(NUMBERS, None)
    features = np.stack([SIZE, np.nan_to_num(OTHER)], axis=1)
    runtime = serve(LinearRegression().fit(features, VALUE), signature, features)

    built, values, total = explain(None, runtime, signature, features)

    assert built.kind == "sampled"
    assert total == pytest.approx(values, abs=1e-4)
