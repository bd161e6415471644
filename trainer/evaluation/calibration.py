"""Score the held-out rows, for prediction intervals and sets of labels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from registry.calibration import Calibration, ranks_to_keep
from trainer.types import Floats, Outputs


def calibrate(truth: npt.NDArray[Any], outputs: Outputs) -> Calibration:
    """Return the scores of rows that the model was not fitted on.

    Args:
        truth: as in `Problem.truth`.
        outputs: the served model's outputs for the same rows.
    """
    scores = np.sort(_scores(truth, outputs.astype(np.float64)))
    ranks = ranks_to_keep(len(scores))
    return Calibration(rows=len(scores), ranks=ranks, scores=scores[np.array(ranks) - 1].tolist())


def _scores(truth: npt.NDArray[Any], outputs: Floats) -> Floats:
    if outputs.ndim == 1:
        return np.abs(truth - outputs)
    given = outputs[np.arange(len(truth)), truth]
    # The predicted class is always in the set, so that no set is empty.
    return np.where(outputs.argmax(axis=1) == truth, 0.0, 1.0 - given)
