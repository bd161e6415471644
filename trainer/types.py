"""Types that the trainer's modules share."""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.records import ColumnKind, Label

Kind = ColumnKind
Task = Literal["classification", "regression"]
Metric = Literal["log_loss", "accuracy", "rmse", "mae"]
Family = Literal[
    "linear", "random_forest", "boosting", "categorical_boosting", "lightgbm", "xgboost"
]
Source = Family | Literal["pipeline", "imported"]
"""A family that Tollgate fits, the owner's training code, or a finished model."""

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Expanded as `registry.features` describes: the ONNX graph's inputs. [N, n] float32 if all columns
# are numbers or booleans, else a table.
Features: TypeAlias = "npt.NDArray[np.float32] | pd.DataFrame"

# A model's outputs for N rows: probabilities [N, classes], or values [N].
Outputs = npt.NDArray[np.floating[Any]]


def kind_of_classes(classes: list[Label] | None) -> Kind:
    """Return the kind of a target's classes; a regression has None."""
    if classes is None or not isinstance(classes[0], bool | str):
        return "number"
    return "boolean" if isinstance(classes[0], bool) else "text"
