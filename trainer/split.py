"""Which rows are held out, and which fold a row is in: by a hash of the row, not by its place.

A row therefore stays on its side when more data arrives, and the live version is judged on rows
that it was not fitted on either. Identical rows hash alike, so they hardly ever leak across.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.columns import Problem
from trainer.errors import DataError
from trainer.kinds import Mask


def hold_out(problem: Problem, *, seed: int) -> Mask:
    """[N] True for the quarter of the rows, of each class, that no model is fitted on.

    A class of one row stays in training, as every model must know every class.

    Raises:
        DataError: no class has two rows.
    """
    ranks, sizes = _ranks(problem, seed=seed, among=np.ones(len(problem.truth), dtype=np.bool_))
    held_out = ranks < (sizes + 2) // 4
    if not held_out.any():
        raise DataError("No class has enough rows to judge a model by.")
    return held_out


def assign_folds(problem: Problem, *, seed: int, training: Mask, most: int) -> npt.NDArray[Any]:
    """[N] the fold of each training row, from 0; −1 for a row that is in none.

    Those are the rows held out, and the classes with fewer rows than there are folds: every model
    must see them. There are `most` folds, or fewer if even the largest class has fewer rows.

    Raises:
        DataError: no class has two training rows.
    """
    ranks, sizes = _ranks(problem, seed=seed, among=training)
    folds = min(most, int(sizes.max()))
    if folds < 2:
        raise DataError("The classes are too small: most have one row to train on.")
    return np.where(training & (sizes >= folds), ranks % folds, -1)


def _ranks(
    problem: Problem, *, seed: int, among: Mask
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """[N] a row's place by hash within its class, and the size of that class, `among` some rows."""
    hashes = pd.util.hash_pandas_object(
        problem.table, index=False, hash_key=f"{seed:016d}"
    ).to_numpy()
    is_classes = problem.signature.classes is not None
    groups = problem.truth if is_classes else np.zeros(len(hashes), dtype=np.int64)
    ranks = np.zeros(len(hashes), dtype=np.int64)
    sizes = np.zeros(len(hashes), dtype=np.int64)
    for group in np.unique(groups):
        rows = np.flatnonzero((groups == group) & among)
        ranks[rows[np.argsort(hashes[rows], kind="stable")]] = np.arange(len(rows))
        sizes[rows] = len(rows)
    return ranks, sizes
