"""Times, sentences and rare categories are explained exactly, by column."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from registry.explain.artefact import load_explainer
from registry.explain.encoded import EncodedExplainer
from registry.explanations import Explainer
from registry.features import Arrays
from registry.records import Column, Label, Signature
from registry.runtimes.runtime import Runtime
from services.inference.models.inputs import Inputs
from trainer.modelling.candidates import Candidate, TrainingContext, build
from trainer.modelling.encoding import encode, to_arrays, to_json
from trainer.modelling.explaining.build import build_explainer
from trainer.modelling.export import prove_equal, to_onnx
from trainer.modelling.fitting import fit
from trainer.modelling.serving import load_onnx
from trainer.types import Family

ROWS, FEW = 400, 20
SAMPLED = 3
"""Rows to explain by sampling, which asks the model 8,000 times for each."""
COLUMNS = [
    Column(name="n", kind="number"),
    Column(name="at", kind="datetime"),
    Column(name="review", kind="sentence"),
    Column(name="town", kind="text"),
]
PARAMETERS: dict[Family, Any] = {
    "linear": {},
    "random_forest": {},
    "boosting": {"max_iter": 10},
    "categorical_boosting": {"max_iter": 10},
    "lightgbm": {"n_estimators": 10},
    "xgboost": {"n_estimators": 10},
}
_CHANCE = np.random.default_rng(5)
_TOWNS = np.array([f"town {i}" for i in range(150)], dtype=object)
_WORDS = np.array([f"word{i}" for i in range(120)], dtype=object)


def categories(values: Any) -> pd.Series:
    return pd.Series(pd.Categorical(np.where(_CHANCE.random(ROWS) < 0.1, None, values)))


TOWN = _CHANCE.integers(len(_TOWNS), size=ROWS)
IS_GOOD = _CHANCE.random(ROWS) < 0.5
SECONDS = 1.7e9 + _CHANCE.integers(10**8, size=ROWS).astype(np.float64)
TABLE = pd.DataFrame(
    {
        "n": _CHANCE.normal(size=ROWS).astype(np.float32),
        "at": np.where(_CHANCE.random(ROWS) < 0.1, np.nan, SECONDS),
        "review": categories(
            [
                " ".join([*_CHANCE.choice(_WORDS, 20), "Wonderful!" if good else "dreadful"])
                for good in IS_GOOD
            ]
        ),
        "town": categories(_TOWNS[TOWN]),
    }
)
VALUE = np.asarray(TABLE["n"]) + 2 * IS_GOOD + TOWN / 50 + (SECONDS // 86_400 % 7 > 4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Fit on one thread, which is faster for a handful of rows."""
    with threadpool_limits(1):
        yield


def signature_of(classes: list[Label] | None) -> Signature:
    return Signature(
        task="regression" if classes is None else "classification",
        target="y",
        columns=COLUMNS,
        classes=classes,
        starts={"at": datetime(2023, 11, 14, tzinfo=UTC)},
    )


def labels_of(classes: list[Label] | None) -> Any:
    if classes is None:
        return VALUE
    edges = np.quantile(VALUE, np.arange(1, len(classes)) / len(classes))
    return np.array(classes)[np.digitize(VALUE, edges)]


def load(pipeline: Any, signature: Signature, runtime: Runtime) -> tuple[str, Explainer]:
    """Build an explainer, and load it as inference does; return its kind, too."""
    rows = np.arange(ROWS)
    built = build_explainer(
        pipeline,
        signature=signature,
        runtime=runtime,
        background=to_json(TABLE, COLUMNS, rows[:8]),
        training=lambda: [to_arrays(TABLE, signature, rows)],
        held_out=lambda: [to_arrays(TABLE, signature, rows[:100])],
    )
    return built.kind, load_explainer(built.content, signature, runtime, Inputs(signature).decode)


def requests(signature: Signature, *, count: int = FEW) -> Arrays:
    """Return some rows as inference decodes them, the last without any value."""
    rows = to_json(TABLE, COLUMNS, np.arange(count - 1))
    return Inputs(signature).decode([*rows, [None] * len(COLUMNS)])


@pytest.mark.parametrize("classes", [None, ["no", "yes"], [3, 5, 9]], ids=["value", "two", "three"])
@pytest.mark.parametrize("family", PARAMETERS)
def test_every_family_is_explained_exactly(family: Family, classes: list[Label] | None) -> None:
    signature = signature_of(classes)
    context = TrainingContext(signature=signature, seed=1, jobs=1, balanced=classes is not None)
    features = encode(TABLE, signature)
    pipeline = build(Candidate(family, PARAMETERS[family]), context, features)
    if family == "random_forest":
        pipeline[-1].set_params(n_estimators=10)
    fit(pipeline, features, labels_of(classes))
    runtime = load_onnx(to_onnx(pipeline, signature), signature)
    prove_equal(runtime, pipeline, features, signature)
    given = requests(signature)

    kind, explainer = load(pipeline, signature, runtime)

    assert kind == ("linear" if family == "linear" else "trees")
    assert isinstance(explainer, EncodedExplainer)
    names = pipeline[0].get_feature_names_out()
    columns = [int(re.findall(r"column_(\d+)", name)[-1]) for name in names]
    assert explainer.sources.tolist() == columns
    assert set(columns) == {0, 1, 2, 3}

    response = runtime.run(given, probabilities=classes is not None)
    served, chosen = np.array(response.predictions), np.zeros(FEW, dtype=np.int64)
    if response.probabilities is not None:
        chosen = np.array(response.probabilities).argmax(axis=1)
        served = np.array(response.probabilities)[np.arange(FEW), chosen]
    found = explainer.explain(given, chosen, served if explainer.needs_probabilities else None)
    total = found.base + found.contributions.sum(axis=1)
    assert not found.is_approximate
    assert found.contributions.shape == (FEW, len(COLUMNS))
    used = np.abs(found.contributions).max(axis=0) > 0
    # Histogram boosting ignores categories of few rows.
    assert used.tolist() == [True, True, True, family != "categorical_boosting"]
    if classes is None or explainer.needs_probabilities:
        assert total == pytest.approx(served, abs=1e-4)
    elif len(classes) == 2:
        assert 1 / (1 + np.exp(-total)) == pytest.approx(served, abs=1e-5)
    else:
        raw = explainer.kernel.raw(explainer.encoder.encode(given))
        assert total == pytest.approx(raw[np.arange(FEW), chosen], abs=1e-6)
        assert explainer.answer(given)[np.arange(FEW), chosen] == pytest.approx(served, abs=1e-5)


@pytest.mark.costly
def test_other_models_are_sampled_by_column() -> None:
    signature = signature_of(None)
    context = TrainingContext(signature=signature, seed=1, jobs=1, balanced=False)
    features = encode(TABLE, signature)
    prepare = build(Candidate("random_forest", {}), context, features)[0]
    pipeline = make_pipeline(prepare, KNeighborsRegressor()).fit(features, VALUE)
    runtime = load_onnx(to_onnx(pipeline, signature), signature)
    given = requests(signature, count=SAMPLED)
    served = np.array(runtime.run(given).predictions)

    kind, explainer = load(pipeline, signature, runtime)

    found = explainer.explain(given, np.zeros(SAMPLED, dtype=np.int64), served)
    assert kind == "sampled"
    assert found.is_approximate
    assert found.contributions.shape == (SAMPLED, len(COLUMNS))
    assert found.base + found.contributions.sum(axis=1) == pytest.approx(served, abs=1e-6)
