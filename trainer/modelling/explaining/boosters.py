"""Read the trees of LightGBM and XGBoost models, without importing either."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from registry.explain.encoded import Link
from registry.explain.trees import Tree, Trees, flatten
from trainer.modelling.boosters import PositionClassifier
from trainer.modelling.explaining.estimators import NotReadable

_ZERO = 1e-35
"""LightGBM counts numbers up to this as 0."""


def read_booster(model: Any) -> tuple[Trees, Link]:
    """Return the kernel of a fitted model, and how its answers follow from its outputs.

    Raises:
        NotReadable: it is not made of trees, or a feature of its trees is not supported here.
    """
    if isinstance(model, PositionClassifier):
        model = model.model
    if type(model).__module__.startswith("lightgbm"):
        return _lightgbm(getattr(model, "booster_", model).dump_model())
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    return _xgboost(json.loads(bytes(booster.save_raw("json"))))


# -- LightGBM --------------------------------------------------------------------------------------


def _lightgbm(dump: dict[str, Any]) -> tuple[Trees, Link]:
    outputs = dump["num_tree_per_iteration"]
    count = len(dump["tree_info"])
    scale = outputs / count if dump.get("average_output") else 1.0
    roots = [tree["tree_structure"] for tree in dump["tree_info"]]
    known: dict[int, set[float]] = {}
    for root in roots:
        for node in _splits(root):
            if node["decision_type"] == "==":
                known.setdefault(node["split_feature"], set()).update(_categories(node))
    trees = [
        _lightgbm_tree(root, output=i % outputs, outputs=outputs, scale=scale)
        for i, root in enumerate(roots)
    ]
    flat = flatten(trees, np.zeros(outputs), {f: sorted(values) for f, values in known.items()})
    objective = str(dump.get("objective", "")).partition(" ")[0]
    if objective == "binary" and "sigmoid:1" not in str(dump["objective"]).split():
        raise NotReadable
    links: dict[str, Link] = {"binary": "logistic", "multiclass": "softmax"}
    return flat, links.get(objective, "identity")


def _splits(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if "split_feature" in each:
            yield each
            waiting += [each["left_child"], each["right_child"]]


def _categories(node: dict[str, Any]) -> list[float]:
    return [float(value) for value in str(node["threshold"]).split("||")]


def _lightgbm_tree(root: dict[str, Any], *, output: int, outputs: int, scale: float) -> Tree:
    nodes: list[dict[str, Any]] = [root]
    left, right = [], []
    for node in nodes:  # grows while it is read
        if "split_feature" not in node:
            left.append(-1)
            right.append(-1)
            continue
        left.append(len(nodes))
        right.append(len(nodes) + 1)
        nodes += [node["left_child"], node["right_child"]]
    values = np.zeros((len(nodes), outputs))
    values[:, output] = [
        0.0 if "split_feature" in node else node["leaf_value"] * scale for node in nodes
    ]
    tests = {i: node for i, node in enumerate(nodes) if node.get("decision_type") == "=="}
    return Tree(
        left=np.array(left),
        right=np.array(right),
        feature=np.array([node.get("split_feature", 0) for node in nodes]),
        threshold=np.array(
            [0.0 if i in tests else node.get("threshold", 0.0) for i, node in enumerate(nodes)]
        ),
        missing_left=np.array([_missing_goes_left(node) for node in nodes]),
        cover=np.array(
            [node.get("internal_count", node.get("leaf_count", 1)) for node in nodes], np.float64
        ),
        values=values,
        categories={i: _categories(node) for i, node in tests.items()},
    )


def _missing_goes_left(node: dict[str, Any]) -> bool:
    if "split_feature" not in node or node["decision_type"] == "==":
        return False
    match node["missing_type"]:
        case "NaN":
            return bool(node["default_left"])
        case "None":  # it reads NaN as 0
            return bool(node["threshold"] >= -_ZERO)
        case _:
            raise NotReadable  # zeros count as missing, which a threshold cannot express


# -- XGBoost ---------------------------------------------------------------------------------------


def _xgboost(document: dict[str, Any]) -> tuple[Trees, Link]:
    learner = document["learner"]
    booster = learner["gradient_booster"]
    weights = np.ones(0)
    if booster["name"] == "dart":
        weights = np.array(booster["weight_drop"], dtype=np.float64)
        booster = booster["gbtree"]
    elif booster["name"] != "gbtree":
        raise NotReadable
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    groups = booster["model"]["tree_info"]
    raw = booster["model"]["trees"]
    if any(int(tree["tree_param"].get("size_leaf_vector", "1")) > 1 for tree in raw):
        raise NotReadable
    weights = weights if len(weights) else np.ones(len(raw))
    known: dict[int, set[float]] = {}
    for tree in raw:
        for node, values in _xgboost_categories(tree).items():
            known.setdefault(tree["split_indices"][node], set()).update(values)
    # Its categories are numbered from 0, and those that no test names go left.
    known_values = {
        feature: [float(value) for value in range(int(max(values)) + 1)]
        for feature, values in known.items()
    }
    trees = [
        _xgboost_tree(tree, known_values, output=group, outputs=outputs, scale=weight)
        for tree, group, weight in zip(raw, groups, weights, strict=True)
    ]
    objective = learner["objective"]["name"]
    text = str(learner["learner_model_param"]["base_score"]).strip("[]")
    base = np.array([float(value) for value in text.split(",")])
    if objective in ("binary:logistic", "reg:logistic"):
        base = np.log(base / (1 - base))
    links: dict[str, Link] = {"binary:logistic": "logistic", "multi:softprob": "softmax"}
    flat = flatten(trees, np.broadcast_to(base, (outputs,)).copy(), known_values)
    return flat, links.get(objective, "identity")


def _xgboost_categories(tree: dict[str, Any]) -> dict[int, list[float]]:
    """Return the categories that go right, by node."""
    found = {}
    for node, first, size in zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    ):
        found[node] = [float(value) for value in tree["categories"][first : first + size]]
    return found


def _xgboost_tree(
    tree: dict[str, Any],
    known: dict[int, list[float]],
    *,
    output: int,
    outputs: int,
    scale: float,
) -> Tree:
    left = np.array(tree["left_children"])
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    features = np.array(tree["split_indices"])
    is_leaf = left < 0
    values = np.zeros((len(left), outputs))
    values[:, output] = np.where(is_leaf, conditions * scale, 0.0)
    # A row goes left if its value is smaller, not if it is equal.
    below = np.nextafter(conditions, np.float32(-np.inf))
    going_right = _xgboost_categories(tree)
    return Tree(
        left=left,
        right=np.array(tree["right_children"]),
        feature=features,
        threshold=np.where(is_leaf, 0.0, below),
        missing_left=np.array(tree["default_left"], dtype=np.bool_),
        cover=np.array(tree["sum_hessian"], dtype=np.float64),
        values=values,
        categories={
            node: [value for value in known[features[node]] if value not in set(right)]
            for node, right in going_right.items()
        },
    )
