"""What the package `shap` answers for small models, stored with the models themselves.

Run it with `shap` installed to write `shap_reference.npz` anew:
`python -m tests.unit.trainer.shap_reference`. The package is too large to install for every test.
"""

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression

from registry.explain.linear import Linear
from registry.explain.trees import Trees
from tests.unit.trainer.test_tree_explanations import CASES
from trainer.modelling.explaining.estimators import read_estimator

FILE = Path(__file__).with_suffix(".npz")
ROWS = 8
KINDS: dict[str, type[Linear] | type[Trees]] = {"linear": Linear, "trees": Trees}
UNSUPPORTED = {"histograms with categories", "three classes boosted"}
"""`shap` does not read such models."""


def main() -> None:
    """Fit every model, ask `shap`, and write the file."""
    import shap  # type: ignore[import-not-found]

    found: dict[str, Any] = {"version": np.array(version("shap"))}
    for name, (model, rows, truth) in CASES.items():
        if name not in UNSUPPORTED:
            rows = rows.astype(np.float32)
            model.fit(rows, truth)
            found |= _entries(name, shap.TreeExplainer(model), model, rows)
    rows, truth = load_diabetes(return_X_y=True)
    background = shap.maskers.Independent(rows, max_samples=len(rows))
    for name, model in {
        "linear regression": LinearRegression().fit(rows, truth),
        "logistic regression": LogisticRegression().fit(rows, truth > 140),
    }.items():
        found |= _entries(name, shap.LinearExplainer(model, background), model, rows)
    np.savez_compressed(FILE, **found)


def _entries(name: str, explainer: Any, model: Any, rows: Any) -> dict[str, Any]:
    kernel, _ = read_estimator(model, mean=rows.astype(np.float32).mean(axis=0))
    few = rows[:ROWS].astype(np.float32)
    values = explainer.shap_values(few)
    fields = {each.name: getattr(kernel, each.name) for each in dataclasses.fields(kernel)}
    entries = {
        "kind": "linear" if isinstance(kernel, Linear) else "trees",
        "rows": few,
        "expected": np.ravel(explainer.expected_value),
        "contributions": np.reshape(values, (*few.shape, -1)),
        **fields,
    }
    return {f"{name}/{key}": np.asarray(value) for key, value in entries.items()}


if __name__ == "__main__":
    main()
