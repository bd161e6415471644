"""Give a model of the owner's the table that it was written for.

Pickles of such models contain `NamedTable`, so its module and fields must not change.
"""

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from registry.features import column_input


class NamedTable(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """The first step of a pipeline: turns a request's arrays into a table with the data's columns.

    Numbers and booleans become float64, and text becomes objects, with NaN for missing values as
    pandas reads them. Sentences become objects with "" for missing values. Times become
    `datetime64[us]` in UTC, without a time zone, with NaT for missing values.

    Args:
        names: the columns, in signature order.
        kinds: their kinds.
    """

    def __init__(self, names: list[str], kinds: list[str]) -> None:
        self.names = names
        self.kinds = kinds

    def fit(self, features: Any, labels: Any = None) -> Self:
        """Record the layout of the arrays, which is checked when the pickle is loaded."""
        self.n_features_in_ = len(self.names)
        if isinstance(features, pd.DataFrame):
            self.feature_names_in_ = np.asarray(features.columns, dtype=object)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, features: Any) -> pd.DataFrame:
        """Return the table; see `registry.features` for the layout of a request's arrays."""
        is_table = isinstance(features, pd.DataFrame)
        columns: dict[str, Any] = {}
        for position, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            values = (
                features[column_input(position)].to_numpy() if is_table else features[:, position]
            )
            match kind:
                case "text":
                    texts = np.array([text or np.nan for text in values], dtype=object)
                    columns[name] = pd.Series(texts, dtype=object)
                case "sentence":
                    columns[name] = pd.Series(values, dtype=object)
                case "datetime":
                    columns[name] = _to_timestamps(values)
                case _:
                    columns[name] = values.astype(np.float64)
        return pd.DataFrame(columns, index=pd.RangeIndex(len(features)))


def _to_timestamps(seconds: Any) -> Any:
    """Return seconds since 1970 as timestamps; NaN becomes NaT."""
    is_missing = np.isnan(seconds)
    microseconds = np.round(np.where(is_missing, 0.0, seconds) * 1e6)
    timestamps = microseconds.astype(np.int64).astype("datetime64[us]")
    return np.where(is_missing, np.datetime64("NaT", "us"), timestamps)
