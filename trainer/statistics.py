"""How columns, target and answers are distributed: what drift is measured against later."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from services.common.model_records import Column, ColumnStatistics, Signature, Statistics
from trainer.columns import Problem
from trainer.kinds import Floats, Outputs, kind_of_classes

MOST_BYTES = 128 * 1024
BINS = (10, 5, 2)  # tried in turn: the more columns, the fewer
MOST_CATEGORIES = 10
LONGEST_CATEGORY = 64


def describe(problem: Problem, outputs: Outputs) -> Statistics | None:
    """Statistics of the features, the target, and the answers on the rows held out.

    Args:
        outputs: what the model says of the rows held out.

    Returns:
        None if there are so many columns that even two bins each take more than 128 KiB.
    """
    for bins in BINS:
        found = Statistics(
            columns=[
                describe_column(problem.table[column.name], column, bins=bins)
                for column in problem.signature.columns
            ],
            target=_describe_answers(problem.signature, "target", problem.truth, bins=bins),
            predictions=_describe_answers(
                problem.signature,
                "predictions",
                outputs if outputs.ndim == 1 else outputs.argmax(axis=1),
                bins=bins,
            ),
        )
        if len(found.model_dump_json(indent=2)) <= MOST_BYTES:
            return found
    return None


def describe_column(values: pd.Series, column: Column, *, bins: int = 10) -> ColumnStatistics:
    """One feature column of a table."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy()
        counts = np.bincount(codes[codes >= 0], minlength=len(values.cat.categories))
        return _describe_categories(column, len(values), values.cat.categories, counts)
    numbers = values.to_numpy()
    present = numbers[~np.isnan(numbers)]
    if column.kind == "boolean":
        counts = np.bincount(present.astype(np.int64), minlength=2)
        return _describe_categories(column, len(values), [False, True], counts)
    if column.kind == "text":  # nothing in it: what there is has categories
        return _describe_categories(column, len(values), [], np.zeros(0, dtype=np.int64))
    return _describe_numbers(column.name, len(values), present, bins=bins)


def shares_of(values: Floats, edges: list[float]) -> list[float]:
    """The share of the values in each bin; a bin holds its upper edge."""
    places = np.searchsorted(np.asarray(edges), values, side="left")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return [_short(share) for share in counts / max(len(values), 1)]


def _describe_numbers(name: str, count: int, values: Any, *, bins: int) -> ColumnStatistics:
    missing = _short(1 - len(values) / count) if count else 0.0
    if not len(values):
        return ColumnStatistics(name=name, kind="number", count=count, missing=missing)
    quantiles = np.quantile(values, np.arange(1, bins) / bins).tolist()
    edges = sorted({_short(edge) for edge in quantiles})
    return ColumnStatistics(
        name=name,
        kind="number",
        count=count,
        missing=missing,
        mean=_short(values.mean(dtype=np.float64)),
        std=_short(values.std(dtype=np.float64)),
        min=_short(values.min()),
        max=_short(values.max()),
        edges=edges,
        shares=shares_of(values, edges),
    )


def _describe_categories(
    column: Column, count: int, names: Sequence[Any] | pd.Index, counts: npt.NDArray[Any]
) -> ColumnStatistics:
    present = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    shown = [
        i for i in order[:MOST_CATEGORIES] if counts[i] and len(str(names[i])) <= LONGEST_CATEGORY
    ]
    shares = [_short(counts[i] / present) for i in shown]
    others = (present - sum(int(counts[i]) for i in shown)) / max(present, 1)
    return ColumnStatistics(
        name=column.name,
        kind=column.kind,
        count=count,
        missing=_short(1 - present / count) if count else 0.0,
        categories=[names[i] for i in shown],
        shares=[*shares, _short(others)],
    )


def _describe_answers(
    signature: Signature, name: str, values: npt.NDArray[Any], *, bins: int
) -> ColumnStatistics:
    if signature.classes is None:
        return _describe_numbers(name, len(values), values, bins=bins)
    counts = np.bincount(values, minlength=len(signature.classes))
    column = Column(name=name, kind=kind_of_classes(signature.classes))
    return _describe_categories(column, len(values), list(signature.classes), counts)


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")
