"""Boosters of LightGBM and XGBoost as estimators.

A pickle for serving contains these classes by value, so they import nothing of Tollgate.
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class _Booster(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """The booster is created from its file where it is first used.

    Args:
        library: `lightgbm` or `xgboost`.
        content: the booster's file.
        width: how many columns it takes.
    """

    def __init__(self, library: str, content: bytes, width: int) -> None:
        self.library = library
        self.content = content
        self.n_features_in_ = width
        self._booster: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_booster": None}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, table: Any, labels: Any = None) -> Any:
        """Refuse: the model is finished."""
        raise TypeError("a finished booster cannot be fitted")

    def get_booster(self) -> Any:
        """Return the library's own object."""
        if self._booster is None and self.library == "lightgbm":
            import lightgbm

            self._booster = lightgbm.Booster(model_str=self.content.decode())
        elif self._booster is None:
            import xgboost

            self._booster = xgboost.Booster({"nthread": 1})
            self._booster.load_model(bytearray(self.content))
        return self._booster

    def _compute(self, table: Any) -> Any:
        booster, matrix = self.get_booster(), np.asarray(table, dtype=np.float64)
        if self.library == "lightgbm":
            return booster.predict(matrix, num_threads=1)
        import xgboost

        return booster.predict(
            xgboost.DMatrix(matrix, nthread=1, feature_names=booster.feature_names)
        )


class BoosterRegressor(RegressorMixin, _Booster):  # type: ignore[misc]
    """A regressor."""

    def predict(self, table: Any) -> Any:
        """Return the booster's output for each row."""
        return self._compute(table)


class BoosterClassifier(ClassifierMixin, _Booster):  # type: ignore[misc]
    """A classifier.

    Args:
        classes: the labels, in the order of the booster's outputs.
    """

    def __init__(self, library: str, content: bytes, width: int, classes: list[Any]) -> None:
        super().__init__(library, content, width)
        self.classes_ = np.array(classes, dtype=object if isinstance(classes[0], str) else None)

    def predict(self, table: Any) -> Any:
        """Return the most likely label of each row."""
        return self.classes_[self.predict_proba(table).argmax(axis=1)]

    def predict_proba(self, table: Any) -> Any:
        """Return the probability of each class, [rows, classes]."""
        outputs = np.asarray(self._compute(table))
        return outputs if outputs.ndim == 2 else np.column_stack([1 - outputs, outputs])
