"""The interface that every runtime of a loaded model implements."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.explanations import Explanations
from registry.features import Arrays, expand, needs_expansion
from registry.records import Signature


class OutputNotFinite(ValueError):
    """The values are so extreme that the model's output is not finite."""


class ModelOutput(NamedTuple):
    """A model's raw output: labels or values [rows], and a classifier's probabilities.

    Args:
        predictions: boolean labels may be 0 and 1.
        probabilities: [rows, classes], if they were requested.
    """

    predictions: npt.NDArray[Any]
    probabilities: npt.NDArray[Any] | None


class InferenceResponse(NamedTuple):
    """Labels or numbers, one per row; probabilities [rows, classes] if they were requested.

    It has `explanations` if the rows were to be explained.
    """

    predictions: list[Any]
    probabilities: list[list[float]] | None
    explanations: Explanations | None = None


class Runtime(ABC):
    """One loaded model; safe to call from several threads at once.

    Args:
        expands: whether the model takes expanded inputs (see `registry.features`). A model of the
            owner's takes the arrays of a request as they are.
    """

    def __init__(self, signature: Signature, *, expands: bool = True) -> None:
        self.expands = expands
        self._boolean = any(label is True for label in signature.classes or [])
        self._signature = signature if expands and needs_expansion(signature) else None

    @abstractmethod
    def compute(self, inputs: Arrays, *, probabilities: bool = False) -> ModelOutput:
        """Run the model on what `expand` returns; `probabilities` is for classifiers only."""

    def expand(self, arrays: Arrays) -> Arrays:
        """Return the inputs of `compute` for the arrays of a request."""
        return arrays if self._signature is None else expand(arrays, self._signature)

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> InferenceResponse:
        """Predict what a client receives; `probabilities` is for classifiers only.

        Args:
            arrays: as decoded from a request, not expanded.

        Raises:
            OutputNotFinite: the output is not finite.
        """
        labels, scores = self.compute(self.expand(arrays), probabilities=probabilities)
        _check_finite(labels if scores is None else scores)
        predictions = labels.tolist()
        if self._boolean:
            predictions = [bool(label) for label in predictions]
        return InferenceResponse(predictions, None if scores is None else scores.tolist())


def _check_finite(numbers: npt.NDArray[Any]) -> None:
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise OutputNotFinite("the model's output is not finite")
