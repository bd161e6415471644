"""Explain any model approximately, by sampling the orders in which columns become known.

A walk starts at a background row and changes one column after another, in a random order, to the
value of the explained row (Štrumbelj and Kononenko 2014). The changes of the output along a walk
add up to the whole difference, so the contributions do as well, however few the walks are. Every
background row is walked from equally often, and each order also backwards, which halves the noise.
"""

import numpy as np
import numpy.typing as npt

from registry.explanations import Explanations
from registry.features import MATRIX, Arrays, column_input
from registry.runtimes.runtime import Runtime

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAX_ROWS = 100
BACKGROUND_ROWS = 32
MAX_EVALUATIONS = 8_000
"""Per explained row, as far as the number of columns allows."""
MIN_STARTS = 4
ROWS_AT_ONCE = 4_096
"""Rows of one call of the model, to bound memory."""
SEED = 7
"""Fixed, so that a repeated request gets the same answer."""


class SampledExplainer:
    """Explains a regressor's value, or the probability of the predicted class.

    Args:
        runtime: the served model.
        background: some training rows, as the arrays of a request.
        columns: how many columns the signature has.

    Raises:
        ValueError: the model's output is not finite for any background row.
    """

    max_rows = MAX_ROWS

    def __init__(
        self, runtime: Runtime, background: Arrays, *, columns: int, is_classifier: bool
    ) -> None:
        self._runtime = runtime
        self._columns = columns
        self.needs_probabilities = is_classifier
        # Not every model accepts missing values, which training rows may have.
        outputs = self._evaluate(background)
        usable = np.flatnonzero(np.isfinite(outputs).all(axis=1))
        usable = usable[: max(MIN_STARTS, MAX_EVALUATIONS // (2 * columns))]
        if not len(usable):
            raise ValueError("the model predicts nothing for the background")
        self._background = {name: array[usable] for name, array in background.items()}
        self._starts = outputs[usable]
        self._ranks = _walks(len(usable), columns)

    def explain(self, arrays: Arrays, chosen: Indices, served: Floats | None) -> Explanations:
        """Explain rows; see `Explainer`."""
        starts, rows = self._starts, len(chosen)
        base, contributions = np.empty(rows), np.zeros((rows, self._columns))
        for row in range(rows):
            one = {name: array[row : row + 1] for name, array in arrays.items()}
            output = int(chosen[row])
            base[row] = starts[:, output].mean()
            contributions[row] = self._explain(one, output, starts[:, output])
            if served is not None:
                # The walks end at the row as evaluated here; batches may round differently.
                largest = np.abs(contributions[row]).argmax()
                contributions[row, largest] += served[row] - base[row] - contributions[row].sum()
        return Explanations(base, contributions, is_approximate=True)

    def _explain(self, one: Arrays, output: int, starts: Floats) -> Floats:
        """Return the contributions [columns] for one row, averaged over all walks."""
        walks = len(self._ranks)
        total = np.zeros(self._columns)
        last = np.tile(starts, walks // len(starts))
        order = np.argsort(self._ranks, axis=1)
        at_once = max(1, ROWS_AT_ONCE // walks)
        for first in range(0, self._columns, at_once):
            steps = np.arange(first, min(first + at_once, self._columns))
            # [steps, walks, columns] which columns a walk has changed after each step
            is_known = self._ranks[None] <= steps[:, None, None]
            outputs = self._evaluate(self._mix(one, is_known))[:, output].reshape(len(steps), walks)
            for step, reached in zip(steps, outputs, strict=True):
                np.add.at(total, order[:, step], reached - last)
                last = reached
        return total / walks

    def _mix(self, one: Arrays, is_known: npt.NDArray[np.bool_]) -> Arrays:
        """Return inputs with the known cells of the row, and the others of the background."""
        steps, walks, columns = is_known.shape
        copies = steps * walks // len(next(iter(self._background.values())))
        flat = is_known.reshape(-1, columns)
        mixed: Arrays = {}
        for name, array in self._background.items():
            known = flat if name == MATRIX else flat[:, [self._position(name)]]
            mixed[name] = np.where(known, one[name], np.tile(array, (copies, 1)))
        return mixed

    def _position(self, name: str) -> int:
        return next(i for i in range(self._columns) if column_input(i) == name)

    def _evaluate(self, arrays: Arrays) -> Floats:
        """Return the outputs [rows, outputs]."""
        inputs = self._runtime.expand(arrays)
        output = self._runtime.compute(inputs, probabilities=self.needs_probabilities)
        values = output.predictions if output.probabilities is None else output.probabilities
        return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def _walks(starts: int, columns: int) -> Indices:
    """Return [walks, columns] the step in which each walk changes each column.

    Walk `i` starts at background row `i % starts`.
    """
    chance = np.random.default_rng(SEED)
    rounds = max(1, MAX_EVALUATIONS // (2 * starts * columns))
    forwards = np.stack([chance.permutation(columns) for _ in range(starts * rounds)])
    return np.concatenate([forwards, columns - 1 - forwards])
