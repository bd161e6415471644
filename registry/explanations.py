"""What an explanation is: a base value, and how much each column adds to it."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from registry.features import Arrays

Floats = npt.NDArray[np.float64]


class Explanations(NamedTuple):
    """Explanations of some rows: `base` plus a row's contributions is the explained output.

    The output is a regressor's value. For a classifier it is the raw score (log-odds) of the
    predicted class if the model has one, else the class's probability.

    Args:
        base: [rows] the output expected without knowing any column.
        contributions: [rows, columns] in signature order.
        is_approximate: whether they were sampled.
    """

    base: Floats
    contributions: Floats
    is_approximate: bool


class Explainer(Protocol):
    """Explains the outputs of one model; safe to call from several threads at once."""

    @property
    def needs_probabilities(self) -> bool:
        """Whether `explain` needs the probabilities of a classifier's prediction."""
        ...

    @property
    def max_rows(self) -> int:
        """How many rows may be explained in one request, since they share a thread."""
        ...

    def explain(
        self, arrays: Arrays, chosen: npt.NDArray[np.int64], served: Floats | None
    ) -> Explanations:
        """Explain rows.

        Args:
            arrays: as decoded from a request.
            chosen: [rows] positions of the predicted classes in the signature; 0 for regression.
            served: [rows] the value, or the probability of the predicted class, that the model
                returned; None without `needs_probabilities`.
        """
        ...
