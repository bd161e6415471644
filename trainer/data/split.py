"""Split rows into training and held-out rows, and into folds, by a hash of each row.

A row therefore stays on its side when more data arrives, and the live version is evaluated on rows
that it was not fitted on either. Identical rows hash alike, so they hardly ever leak across.
Groups stay whole. With times, the newest rows are held out, and each fold is predicted from
earlier rows.
"""

import numpy as np
import pandas as pd

from trainer.data.problem import Problem
from trainer.errors import DataError
from trainer.types import Hashes, Indices, Mask

Fold = tuple[Indices, Indices]
"""The rows to fit on, and the rows to evaluate on."""

ROWS_PER_BLOCK = 100_000
MIN_ROWS_PER_CLASS = 5  # kept by a sample, if the class has as many


def hash_rows(problem: Problem, *, seed: int, by: list[str]) -> Hashes:
    """Return [N] hashes of each row's group, or of its values in the columns `by`.

    Args:
        by: the previous version's columns, so that a new column moves no row. Missing ones are
            ignored; if all are missing, every column counts.
    """
    if problem.groups is not None:
        return _mix(pd.util.hash_array(problem.groups), seed)
    shared = [name for name in by if name in problem.table] or list(problem.table)
    hashes = [
        pd.util.hash_pandas_object(_in_few_bytes(problem.table[shared], start), index=False)
        for start in range(0, len(problem.table), ROWS_PER_BLOCK)
    ]
    return _mix(np.concatenate(hashes), seed)


def _in_few_bytes(table: pd.DataFrame, start: int) -> pd.DataFrame:
    """Return a slice of rows with only its own categories: hashing creates an object for each."""
    rows = table.iloc[start : start + ROWS_PER_BLOCK]
    texts = set(rows.select_dtypes("category"))
    return pd.DataFrame(
        {
            name: rows[name].cat.remove_unused_categories() if name in texts else rows[name]
            for name in rows
        }
    )


def hold_out(problem: Problem, hashes: Hashes, *, share: float) -> Mask:
    """Return [N] True for the held-out share of the rows of each class.

    A class with a single row or group stays in training: every model must know every class.

    Raises:
        DataError: nothing could be held out, or a class appears only in the newest rows.
    """
    if problem.times is not None:
        held_out = _newest(problem, share=share)
    elif problem.groups is not None:
        held_out = _whole_groups(problem, hashes, share=share)
    else:
        ranks, sizes = _ranks(problem, hashes, among=np.ones(len(hashes), dtype=np.bool_))
        held_out = ranks < np.minimum(np.floor(sizes * share + 0.5), sizes - 1)
    if not held_out.any():
        raise DataError("No class has enough rows to evaluate a model.")
    return held_out


def make_folds(problem: Problem, hashes: Hashes, *, rows: Indices, most: int) -> list[Fold]:
    """Return at most `most` folds of the training rows `rows`, as positions in `rows`.

    Rows of classes smaller than the number of folds are always fitted on, never evaluated on.

    Raises:
        DataError: there are too few rows, groups or times.
    """
    places = np.arange(len(rows))
    if problem.times is not None:
        blocks = np.array_split(np.argsort(problem.times[rows], kind="stable"), most + 1)
        folds = [(np.concatenate(blocks[:i]), blocks[i]) for i in range(1, most + 1)]
    elif problem.groups is not None:
        _, order = np.unique(hashes[rows], return_inverse=True)
        folds = [(places[order % most != i], places[order % most == i]) for i in range(most)]
    else:
        among = np.zeros(len(hashes), dtype=np.bool_)
        among[rows] = True
        ranks, sizes = (values[rows] for values in _ranks(problem, hashes, among=among))
        most = min(most, int(sizes.max()))
        place = np.where(sizes >= most, ranks % max(most, 1), -1)
        folds = [(places[place != i], places[place == i]) for i in range(most)] if most > 1 else []
    if problem.signature.classes is not None:
        folds = [fold for fold in folds if len(np.unique(problem.truth[rows][fold[0]])) > 1]
    folds = [fold for fold in folds if len(fold[0]) and len(fold[1])]
    if not folds:
        raise DataError("The classes are too small: most have only one training row or group.")
    return folds


def thin_out(problem: Problem, hashes: Hashes, *, among: Mask, most: int) -> Indices:
    """Sample about `most` of some rows, ascending and stratified, with a few of every class."""
    count = int(among.sum())
    if count <= most:
        return np.flatnonzero(among)
    ranks, sizes = _ranks(problem, hashes, among=among)
    wanted = np.maximum(np.floor(sizes * (most / count)), MIN_ROWS_PER_CLASS)
    return np.flatnonzero(among & (ranks < wanted))


def _mix(hashes: Hashes, seed: int) -> Hashes:
    """Mix the seed into the hashes: pandas' own key applies only to text."""
    return np.asarray(pd.util.hash_array(hashes ^ pd.util.hash_array(np.array([seed]))))


def _newest(problem: Problem, *, share: float) -> Mask:
    """Hold out the newest share of the rows; rows of the same time stay together."""
    times = problem.times
    assert times is not None  # noqa: S101  # the caller checked
    held_out = np.asarray(times > np.quantile(times, 1 - share, method="lower"))
    if not held_out.any():
        held_out = np.asarray(times >= times.max()) & (times.min() < times.max())
    if problem.signature.classes is not None:
        missing = np.setdiff1d(problem.truth, problem.truth[~held_out])
        if len(missing):
            name = problem.signature.classes[int(missing[0])]
            raise DataError(
                f"Class {name!r} appears only in the newest rows, which are held out from training."
            )
    return held_out


def _whole_groups(problem: Problem, hashes: Hashes, *, share: float) -> Mask:
    """Hold out whole groups, in hash order, up to the share of the rows."""
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    held_out = (np.cumsum(counts) <= max(share * len(hashes), counts[0]))[group]
    if problem.signature.classes is not None:
        for position in np.setdiff1d(problem.truth, problem.truth[~held_out]):
            held_out &= group != group[problem.truth == position][0]
    return held_out if not held_out.all() else np.zeros_like(held_out)


def _ranks(problem: Problem, hashes: Hashes, *, among: Mask) -> tuple[Indices, Indices]:
    """Return [N] each row's rank by hash in its class and the class's size, `among` some rows."""
    is_classes = problem.signature.classes is not None
    classes = problem.truth if is_classes else np.zeros(len(hashes), dtype=np.int64)
    ranks = np.zeros(len(hashes), dtype=np.int64)
    sizes = np.zeros(len(hashes), dtype=np.int64)
    for position in np.unique(classes):
        rows = np.flatnonzero((classes == position) & among)
        ranks[rows[np.argsort(hashes[rows], kind="stable")]] = np.arange(len(rows))
        sizes[rows] = len(rows)
    return ranks, sizes
