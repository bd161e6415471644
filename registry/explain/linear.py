"""Shapley values of linear models: interventional, against the mean of the training rows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A linear model of encoded features.

    Args:
        weights: [outputs, features]
        intercepts: [outputs]
        mean: [features] of the training rows.
    """

    weights: Floats
    intercepts: Floats
    mean: Floats

    def shap(
        self, rows: npt.NDArray[np.float32], outputs: npt.NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Return the expected output [rows], and the contributions [rows, features] to it.

        Args:
            outputs: [rows] which output to explain for each row.
        """
        expected = self.weights @ self.mean + self.intercepts
        return expected[outputs], self.weights[outputs] * (rows - self.mean)

    def raw(self, rows: npt.NDArray[np.float32]) -> Floats:
        """Return the outputs [rows, outputs]."""
        return np.asarray(rows.astype(np.float64) @ self.weights.T + self.intercepts)
