"""Explanations of trees are the Shapley values of the trees that scikit-learn fitted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor

from registry.explain import trees as trees_module
from registry.explain.trees import Trees, flatten
from tests.unit.trainer.shapley import by_enumeration
from trainer.modelling.explaining.estimators import NotReadable, read_estimator

FEATURES = 6
MEAN = np.zeros(FEATURES)
CLASSES = make_classification(
    300,
    FEATURES,
    n_informative=4,
    n_redundant=0,
    n_classes=3,
    n_clusters_per_class=1,
    random_state=0,
)
NUMBERS = make_regression(300, FEATURES, noise=3, random_state=0)
FEW = {"max_iter": 6, "random_state": 0}

Rows = npt.NDArray[np.float32]


def with_gaps(rows: Any) -> Rows:
    """Return rows without a tenth of their values."""
    chance = np.random.default_rng(0)
    return np.where(chance.random(rows.shape) < 0.1, np.nan, rows).astype(np.float32)


def with_categories(rows: Any) -> Rows:
    """Return rows whose features 2 and 4 are categories, not numbered from 0."""
    chance, changed = np.random.default_rng(0), rows.copy()
    changed[:, 2], changed[:, 4] = chance.integers(0, 8, 300), chance.integers(3, 30, 300)
    return np.asarray(changed, dtype=np.float32)


GAPS, CATEGORIES = with_gaps(NUMBERS[0]), with_categories(NUMBERS[0])
BY_CATEGORY = NUMBERS[1] + 90 * (CATEGORIES[:, 2] % 3) + 50 * (CATEGORIES[:, 4] % 4)

CASES: dict[str, tuple[Any, Any, Any]] = {
    "random forest": (RandomForestClassifier(5, random_state=0), *CLASSES),
    "weighted forest": (
        RandomForestClassifier(5, class_weight="balanced", random_state=0),
        CLASSES[0],
        CLASSES[1] > 0,
    ),
    "forest with gaps": (RandomForestRegressor(3, random_state=0), GAPS, NUMBERS[1]),
    "extra trees": (ExtraTreesRegressor(3, max_depth=6, random_state=0), *NUMBERS),
    "one tree": (DecisionTreeRegressor(random_state=0), GAPS, NUMBERS[1]),
    "gradient boosting": (GradientBoostingRegressor(n_estimators=6, random_state=0), *NUMBERS),
    "three classes boosted": (GradientBoostingClassifier(n_estimators=6), *CLASSES),
    "two classes boosted": (
        GradientBoostingClassifier(n_estimators=6),
        CLASSES[0],
        CLASSES[1] > 0,
    ),
    "histograms with gaps": (HistGradientBoostingRegressor(**FEW), GAPS, NUMBERS[1]),
    "histograms of three classes": (HistGradientBoostingClassifier(**FEW), *CLASSES),
    "histograms of two classes": (
        HistGradientBoostingClassifier(**FEW),
        CLASSES[0],
        CLASSES[1] > 0,
    ),
    "histograms with categories": (
        HistGradientBoostingRegressor(categorical_features=[4, 2], **FEW),
        CATEGORIES,
        BY_CATEGORY,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def fitted(request: pytest.FixtureRequest) -> tuple[Any, Rows]:
    """Return an estimator, and rows like those it was fitted on."""
    model, rows, truth = CASES[request.param]
    rows = rows.astype(np.float32)
    return model.fit(rows, truth), rows[:60]


def outputs_of(model: Any, rows: Rows) -> Any:
    """Return scikit-learn's raw scores, else its probabilities, else its values."""
    for name in ("decision_function", "predict_proba", "predict"):
        if hasattr(model, name):
            return np.reshape(getattr(model, name)(rows), (len(rows), -1))
    raise AssertionError


def test_the_outputs_are_those_of_scikit_learn(fitted: tuple[Any, Rows]) -> None:
    model, rows = fitted

    kernel, _ = read_estimator(model, mean=MEAN)

    assert kernel.raw(rows) == pytest.approx(outputs_of(model, rows), abs=1e-9)


def test_base_and_contributions_add_up_to_every_output(fitted: tuple[Any, Rows]) -> None:
    model, rows = fitted
    kernel, _ = read_estimator(model, mean=MEAN)

    for output, wanted in enumerate(outputs_of(model, rows).T):
        base, contributions = kernel.shap(rows, np.full(len(rows), output))

        assert base + contributions.sum(axis=1) == pytest.approx(wanted, abs=1e-9)


def test_contributions_are_shapley_values_by_definition(fitted: tuple[Any, Rows]) -> None:
    model, rows = fitted
    kernel, _ = read_estimator(model, mean=MEAN)
    assert isinstance(kernel, Trees)
    last = kernel.values.shape[1] - 1

    _, contributions = kernel.shap(rows[:2], np.full(2, last))

    for row, found in zip(rows, contributions, strict=False):
        assert found == pytest.approx(by_enumeration(kernel, row, last), abs=1e-9)


def test_categories_that_were_not_in_training_go_where_missing_values_go() -> None:
    model, rows, truth = CASES["histograms with categories"]
    model.fit(rows, truth)
    odd = rows[:3].copy()
    odd[:, 2] = [77, -1, np.nan]

    kernel, _ = read_estimator(model, mean=MEAN)

    assert kernel.raw(odd)[:, 0] == pytest.approx(model.predict(odd), abs=1e-9)


def test_paths_of_more_features_than_the_points_cover_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, truth = make_regression(2_000, 40, n_informative=40, random_state=0)
    rows = rows.astype(np.float32)
    model = ExtraTreesRegressor(3, random_state=0).fit(rows, truth)
    few, _ = read_estimator(model, mean=MEAN)
    monkeypatch.setattr(trees_module, "MAX_POINTS", 30)
    enough, _ = read_estimator(model, mean=MEAN)
    assert isinstance(few, Trees)
    assert isinstance(enough, Trees)
    outputs = np.zeros(5, dtype=np.int64)

    monkeypatch.undo()
    _, with_few = few.shap(rows[:5], outputs)
    monkeypatch.setattr(trees_module, "MAX_POINTS", 30)
    _, with_enough = enough.shap(rows[:5], outputs)

    assert enough._plan.points > few._plan.points == 6
    assert with_few == pytest.approx(with_enough, abs=1e-9 * np.abs(truth).max())


def test_many_rows_are_explained_in_chunks_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, truth = CASES["random forest"]
    kernel, _ = read_estimator(model.fit(rows, truth), mean=MEAN)
    rows, outputs = rows[:7].astype(np.float32), np.array([0, 1, 2, 0, 1, 2, 0])
    base, at_once = kernel.shap(rows, outputs)
    monkeypatch.setattr(trees_module, "MAX_CELLS", 1)

    again, one_by_one = kernel.shap(rows, outputs)

    assert (base == again).all()
    assert at_once == pytest.approx(one_by_one, abs=1e-12)


def test_an_ensemble_without_a_single_split_explains_nothing() -> None:
    constant = DecisionTreeRegressor().fit(np.zeros((9, 2)), np.full(9, 4.0))
    kernel, _ = read_estimator(constant, mean=MEAN)

    base, contributions = kernel.shap(np.zeros((1, 2), np.float32), np.zeros(1, np.int64))

    assert base == [4.0]
    assert (contributions == 0).all()
    assert flatten([], np.array([1.0]), {}).raw(np.zeros((2, 2), np.float32)).tolist() == [[1], [1]]


def test_a_linear_model_is_explained_against_the_mean_of_its_training_rows() -> None:
    rows, truth = CLASSES
    model = LogisticRegression().fit(rows, truth)
    mean = rows.mean(axis=0)

    kernel, link = read_estimator(model, mean=mean)

    base, found = kernel.shap(rows[:4].astype(np.float32), np.full(4, 2))
    assert link == "softmax"
    assert found == pytest.approx(model.coef_[2] * (rows[:4] - mean), abs=1e-5)
    assert base + found.sum(axis=1) == pytest.approx(model.decision_function(rows[:4])[:, 2], 1e-4)


@pytest.mark.parametrize(
    "model",
    [
        SVR(),
        GradientBoostingRegressor(init=LogisticRegression(), n_estimators=2),
    ],
    ids=["a kernel", "boosting that begins with another model"],
)
def test_other_models_cannot_be_read(model: Any) -> None:
    rows, truth = CLASSES
    model.fit(rows, truth)

    with pytest.raises(NotReadable):
        read_estimator(model, mean=MEAN)
