"""Plan an experiment: the rows to fit on, and the folds to compare candidates on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from registry.datetimes import PARTS
from trainer.data.problem import Problem
from trainer.data.split import Fold, make_folds, thin_out
from trainer.modelling.candidates import TrainingContext
from trainer.modelling.preparing import (
    MAX_WORDS_OF_TREES,
    count_features,
)
from trainer.types import Floats, Hashes, Indices, Mask, Metric

FEW_ROWS = 1_000  # up to this many rows, use five folds instead of three
TUNING_ROWS = 8_000

# Fitting needs this many copies of the encoded rows: raw, imputed, float64, binned, and more.
COPIES_OF_FEATURES = 7
# Memory for the table and the fit, as a multiple of the data size; reading needs more before that.
MEMORY_PER_DATA = 3.0
MIN_MEMORY = 64 * 1024**2


@dataclass(frozen=True)
class Experiment:
    """The rows and settings on which candidates are compared.

    Args:
        rows: the training rows to fit on, ascending.
        tuning: the rows among them to cross-validate on; `folds` index into these.
        weights: [classes] weight of a row of each class, or None.
    """

    problem: Problem
    held_out: Mask
    rows: Indices
    tuning: Indices
    folds: list[Fold]
    metric: Metric
    weights: Floats | None
    context: TrainingContext


def plan_experiment(
    problem: Problem,
    hashes: Hashes,
    held_out: Mask,
    *,
    metric: Metric,
    weights: Floats | None,
    context: TrainingContext,
    data_bytes: int,
) -> Experiment:
    """Pick the rows to fit on and the rows to compare candidates on.

    Args:
        data_bytes: size of the data. Fitting may use a fixed multiple of it; if the rows do not
            fit, they are sampled by hash.

    Raises:
        DataError: the classes are too small to cross-validate.
    """
    used = int(problem.table.memory_usage(index=False).sum())
    memory = max(MEMORY_PER_DATA * data_bytes - used, MIN_MEMORY)
    most = int(memory / (COPIES_OF_FEATURES * _encoded_bytes(problem)))
    rows = thin_out(problem, hashes, among=~held_out, most=most)
    training = np.zeros(len(held_out), dtype=np.bool_)
    training[rows] = True
    tuning = thin_out(problem, hashes, among=training, most=TUNING_ROWS)
    folds = make_folds(problem, hashes, rows=tuning, most=5 if len(tuning) <= FEW_ROWS else 3)
    return Experiment(problem, held_out, rows, tuning, folds, metric, weights, context)


def _encoded_bytes(problem: Problem) -> int:
    """Return the bytes of an encoded row: float32 cells, one per category of text or word."""
    signature, total = problem.signature, 0
    for column in signature.columns:
        values: pd.Series = problem.table[column.name]
        if column.kind == "datetime":
            total += 4 * len(PARTS)
        elif not isinstance(values.dtype, pd.CategoricalDtype):
            total += 4
        elif column.kind == "sentence":
            total += 8 + 4 * MAX_WORDS_OF_TREES
        else:
            count = len(values.cat.categories)
            own = count_features("linear", signature, count)
            total += 8 + 4 * own + (8 * len(signature.classes or [0]) if own < count else 0)
    return total
