"""Read linear models and trees out of fitted scikit-learn estimators."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import BaseDecisionTree

from registry.explain.encoded import Link
from registry.explain.linear import Linear
from registry.explain.trees import Tree, Trees, flatten
from trainer.types import Floats

FORESTS = (
    RandomForestClassifier,
    RandomForestRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
)
GRADIENT_BOOSTING = (GradientBoostingClassifier, GradientBoostingRegressor)
HIST_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


class NotReadable(Exception):
    """The estimator is neither linear nor made of trees that can be read."""


def read_estimator(model: Any, *, mean: Floats) -> tuple[Linear | Trees, Link]:
    """Return the kernel of a fitted estimator, and how its answers follow from its outputs.

    The link is a guess that the caller verifies.

    Args:
        mean: [features] of the encoded training rows.

    Raises:
        NotReadable: it is of no supported kind.
    """
    if isinstance(model, BaseDecisionTree):
        return read_forest([model]), "identity"
    if isinstance(model, FORESTS):
        return read_forest(list(model.estimators_)), "identity"
    if isinstance(model, GRADIENT_BOOSTING):
        return _gradient_boosting(model), _link(model)
    if isinstance(model, HIST_BOOSTING):
        return _hist_boosting(model), _link(model)
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
        if weights.ndim != 2 or weights.shape[1] != len(mean):
            raise NotReadable
        intercepts = np.broadcast_to(np.asarray(model.intercept_, np.float64), (len(weights),))
        return Linear(weights, np.array(intercepts), mean), _link(model)
    raise NotReadable


def _link(model: Any) -> Link:
    if not is_classifier(model):
        return "identity"
    return "softmax" if len(model.classes_) > 2 else "logistic"


def read_forest(trees: list[Any]) -> Trees:
    """Return the mean of decision trees: values, or the share of each class."""
    read = [_decision_tree(each.tree_, scale=1 / len(trees)) for each in trees]
    outputs = read[0].values.shape[1]
    return flatten(read, np.zeros(outputs), {})


def _decision_tree(tree: Any, *, scale: float) -> Tree:
    if tree.n_outputs != 1:
        raise NotReadable
    values = tree.value[:, 0, :].astype(np.float64)
    if tree.max_n_classes > 1:
        values = values / values.sum(axis=1, keepdims=True)
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        missing_left=np.asarray(tree.missing_go_to_left, dtype=np.bool_),
        cover=tree.weighted_n_node_samples,
        values=values * scale,
        categories={},
    )


def _gradient_boosting(model: Any) -> Trees:
    if model.init_ != "zero" and not isinstance(model.init_, DummyClassifier | DummyRegressor):
        raise NotReadable  # what it begins with depends on the row
    rounds, outputs = model.estimators_.shape
    blank = np.zeros((1, model.n_features_in_), dtype=np.float32)
    base = np.asarray(model._raw_predict_init(blank), dtype=np.float64).reshape(-1)
    read = []
    for each in range(rounds):
        for output in range(outputs):
            tree = _decision_tree(model.estimators_[each, output].tree_, scale=model.learning_rate)
            read.append(_of_output(tree, output, outputs))
    return flatten(read, base, {})


def _hist_boosting(model: Any) -> Trees:
    features, known = _original_features(model)
    outputs = model.n_trees_per_iteration_
    read = []
    for round_ in model._predictors:
        for output, predictor in enumerate(round_):
            tree = _predictor_tree(predictor, features, known)
            read.append(_of_output(tree, output, outputs))
    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    return flatten(read, base, known)


def _predictor_tree(
    predictor: Any, features: npt.NDArray[np.int64], known: dict[int, list[float]]
) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    feature = features[np.where(is_leaf, 0, nodes["feature_idx"])]
    categories = {
        int(node): list(_members(predictor, int(nodes["bitset_idx"][node]), known[feature[node]]))
        for node in np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~is_leaf)
    }
    return Tree(
        left=np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        feature=feature,
        threshold=np.where(is_leaf, 0.0, nodes["num_threshold"]),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        cover=nodes["count"].astype(np.float64),
        values=np.where(is_leaf, nodes["value"], 0.0)[:, None],
        categories=categories,
    )


def _members(predictor: Any, bitset: int, known: list[float]) -> Iterator[float]:
    """Yield the categories that go left; the trees number them by their position among `known`."""
    words = predictor.raw_left_cat_bitsets[bitset]
    for code, value in enumerate(known):
        if int(words[code // 32]) >> (code % 32) & 1:
            yield value


def _original_features(model: Any) -> tuple[npt.NDArray[np.int64], dict[int, list[float]]]:
    """Return the position of each feature that the trees know, and the known categories.

    A histogram booster puts its categorical features first and numbers their categories.
    """
    count = model.n_features_in_
    if getattr(model, "_preprocessor", None) is None:
        return np.arange(count), {}
    is_categorical = np.asarray(model.is_categorical_, dtype=np.bool_)
    categorical, numerical = np.flatnonzero(is_categorical), np.flatnonzero(~is_categorical)
    encoder = model._preprocessor.named_transformers_["encoder"]
    known = {
        int(place): [float(value) for value in values if value == value]
        for place, values in zip(categorical, encoder.categories_, strict=True)
    }
    return np.concatenate([categorical, numerical]), known


def _of_output(tree: Tree, output: int, outputs: int) -> Tree:
    """Return a tree of one value as one of several outputs."""
    values = np.zeros((len(tree.values), outputs))
    values[:, output] = tree.values[:, 0]
    return Tree(**{**vars(tree), "values": values})
