"""Which rows are held out, and which fold a row is in: by a hash of the row, not by its place.

A row therefore stays on its side when more data arrives, and the live version is judged on rows
that it was not fitted on either. Identical rows hash alike, so they hardly ever leak across.
Groups, where there are some, stay whole; where there are times, the newest rows are held out, and
each fold is judged by what came before it.
"""

import numpy as np
import pandas as pd

from trainer.columns import Problem
from trainer.errors import DataError
from trainer.kinds import Hashes, Indices, Mask

Fold = tuple[Indices, Indices]
"""The rows to fit on, and those to judge by."""

ROWS_AT_ONCE = 100_000
FEWEST_OF_A_CLASS = 5  # that a sample keeps, where there are as many


def hash_rows(problem: Problem, *, seed: int, by: list[str]) -> Hashes:
    """[N] what decides a row's side: its values in the columns `by`, or its group.

    Args:
        by: the columns of an earlier version, so that a new one moves no row; those that are gone
            do not count, and if none is left all do.
    """
    if problem.groups is not None:
        return _mix(pd.util.hash_array(problem.groups), seed)
    shared = [name for name in by if name in problem.table] or list(problem.table)
    hashes = [
        pd.util.hash_pandas_object(_in_few_bytes(problem.table[shared], start), index=False)
        for start in range(0, len(problem.table), ROWS_AT_ONCE)
    ]
    return _mix(np.concatenate(hashes), seed)


def _in_few_bytes(table: pd.DataFrame, start: int) -> pd.DataFrame:
    """Some rows, text with no other categories than theirs: hashing makes an object of each."""
    rows = table.iloc[start : start + ROWS_AT_ONCE]
    texts = set(rows.select_dtypes("category"))
    return pd.DataFrame(
        {
            name: rows[name].cat.remove_unused_categories() if name in texts else rows[name]
            for name in rows
        }
    )


def hold_out(problem: Problem, hashes: Hashes, *, share: float) -> Mask:
    """[N] True for the share of the rows, of each class, that no model is fitted on.

    A class of one row, or of one group, stays in training: every model must know every class.

    Raises:
        DataError: nothing could be held out, or a class is found in the newest rows only.
    """
    if problem.times is not None:
        held_out = _newest(problem, share=share)
    elif problem.groups is not None:
        held_out = _whole_groups(problem, hashes, share=share)
    else:
        ranks, sizes = _ranks(problem, hashes, among=np.ones(len(hashes), dtype=np.bool_))
        held_out = ranks < np.minimum(np.floor(sizes * share + 0.5), sizes - 1)
    if not held_out.any():
        raise DataError("No class has enough rows to judge a model by.")
    return held_out


def make_folds(problem: Problem, hashes: Hashes, *, rows: Indices, most: int) -> list[Fold]:
    """Folds of the training rows `rows`, as positions in it, at most so many.

    Classes with fewer rows than there are folds are in none: every model must see them.

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
        raise DataError("The classes are too small: most have one row or group to train on.")
    return folds


def thin_out(problem: Problem, hashes: Hashes, *, among: Mask, most: int) -> Indices:
    """About `most` of some rows, ascending, of every class its share, and a few at least."""
    count = int(among.sum())
    if count <= most:
        return np.flatnonzero(among)
    ranks, sizes = _ranks(problem, hashes, among=among)
    wanted = np.maximum(np.floor(sizes * (most / count)), FEWEST_OF_A_CLASS)
    return np.flatnonzero(among & (ranks < wanted))


def _mix(hashes: Hashes, seed: int) -> Hashes:
    """Other hashes for every seed: pandas' own key is for text alone."""
    return np.asarray(pd.util.hash_array(hashes ^ pd.util.hash_array(np.array([seed]))))


def _newest(problem: Problem, *, share: float) -> Mask:
    """The rows later than the time that parts off the share; those of one time stay together."""
    times = problem.times
    assert times is not None  # noqa: S101  # the caller looked
    held_out = np.asarray(times > np.quantile(times, 1 - share, method="lower"))
    if not held_out.any():
        held_out = np.asarray(times >= times.max()) & (times.min() < times.max())
    if problem.signature.classes is not None:
        missing = np.setdiff1d(problem.truth, problem.truth[~held_out])
        if len(missing):
            name = problem.signature.classes[int(missing[0])]
            raise DataError(f"The class {name!r} is in the newest rows only: nothing to learn it.")
    return held_out


def _whole_groups(problem: Problem, hashes: Hashes, *, share: float) -> Mask:
    """Groups in the order of their hash, until the share of the rows is reached."""
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    held_out = (np.cumsum(counts) <= max(share * len(hashes), counts[0]))[group]
    if problem.signature.classes is not None:
        for position in np.setdiff1d(problem.truth, problem.truth[~held_out]):
            held_out &= group != group[problem.truth == position][0]
    return held_out if not held_out.all() else np.zeros_like(held_out)


def _ranks(problem: Problem, hashes: Hashes, *, among: Mask) -> tuple[Indices, Indices]:
    """[N] a row's place by hash within its class, and the size of that class, `among` some rows."""
    is_classes = problem.signature.classes is not None
    classes = problem.truth if is_classes else np.zeros(len(hashes), dtype=np.int64)
    ranks = np.zeros(len(hashes), dtype=np.int64)
    sizes = np.zeros(len(hashes), dtype=np.int64)
    for position in np.unique(classes):
        rows = np.flatnonzero((classes == position) & among)
        ranks[rows[np.argsort(hashes[rows], kind="stable")]] = np.arange(len(rows))
        sizes[rows] = len(rows)
    return ranks, sizes
