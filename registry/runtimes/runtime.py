"""The interface that every runtime of a loaded model implements."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from registry.features import Arrays


class OutputNotFinite(ValueError):
    """The values are so extreme that the model's output is not finite."""


class InferenceResponse(NamedTuple):
    """Labels or numbers, one per row; probabilities [rows, classes] if they were requested."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


class Runtime(Protocol):
    """One loaded model; safe to call from several threads at once."""

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> InferenceResponse:
        """Predict; `probabilities` is for classifiers only.

        Raises:
            OutputNotFinite: the output is not finite.
        """
        ...


def check_finite(numbers: npt.NDArray[Any]) -> None:
    """Raise OutputNotFinite if a model's output has a NaN or an infinity."""
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise OutputNotFinite("the model's output is not finite")
