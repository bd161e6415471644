"""Distributions of columns, target and predictions: the reference for drift."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.features import count_words
from registry.records import Column, ColumnStatistics, Signature, Statistics
from trainer.data.problem import Problem
from trainer.types import Floats, Outputs, kind_of_classes

MAX_BYTES = 128 * 1024
BINS = (10, 5, 2)  # fewer bins for more columns
MAX_CATEGORIES = 10
MAX_CATEGORY_LENGTH = 64


def describe(problem: Problem, outputs: Outputs) -> Statistics | None:
    """Return statistics of the features, the target, and the predictions.

    Args:
        outputs: the model's outputs for the held-out rows.

    Returns:
        None if there are so many columns that even with two bins each they exceed 128 KiB.
    """
    for bins in BINS:
        found = Statistics(
            columns=[
                describe_column(problem.table[column.name], column, bins=bins)
                for column in problem.signature.columns
            ],
            target=_describe_outputs(problem.signature, "target", problem.truth, bins=bins),
            predictions=_describe_outputs(
                problem.signature,
                "predictions",
                outputs if outputs.ndim == 1 else outputs.argmax(axis=1),
                bins=bins,
            ),
        )
        if len(found.model_dump_json(indent=2)) <= MAX_BYTES:
            return found
    return None


def describe_column(values: pd.Series, column: Column, *, bins: int = 10) -> ColumnStatistics:
    """Return the statistics of a feature column; of sentences, those of their numbers of words."""
    if column.kind == "sentence":
        return _describe_numbers(column, len(values), _count_words(values), bins=bins)
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy()
        counts = np.bincount(codes[codes >= 0], minlength=len(values.cat.categories))
        return _describe_categories(column, len(values), values.cat.categories, counts)
    numbers = values.to_numpy()
    present = numbers[~np.isnan(numbers)]
    if column.kind == "boolean":
        counts = np.bincount(present.astype(np.int64), minlength=2)
        return _describe_categories(column, len(values), [False, True], counts)
    if column.kind == "text":  # empty: other text columns are categorical
        return _describe_categories(column, len(values), [], np.zeros(0, dtype=np.int64))
    return _describe_numbers(column, len(values), present, bins=bins)


def _count_words(values: pd.Series) -> Floats:
    """Return the number of words of each sentence that is not missing."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return np.zeros(0)
    words = np.array([count_words(str(text)) for text in values.cat.categories], dtype=np.float64)
    codes = values.cat.codes.to_numpy()
    return np.asarray(words[codes[codes >= 0]])


def shares_of(values: Floats, edges: list[float]) -> list[float]:
    """Return the share of the values in each bin; a bin includes its upper edge."""
    places = np.searchsorted(np.asarray(edges), values, side="left")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return [_short(share) for share in counts / max(len(values), 1)]


def _describe_numbers(column: Column, count: int, values: Any, *, bins: int) -> ColumnStatistics:
    missing = _short(1 - len(values) / count) if count else 0.0
    if not len(values):
        return ColumnStatistics(name=column.name, kind=column.kind, count=count, missing=missing)
    is_time = column.kind == "datetime"
    shorten = round if is_time else _short  # six digits of a time would be an hour
    edges = None
    if not is_time:  # the times of requests are newer than those of training; that is no drift
        quantiles = np.quantile(values, np.arange(1, bins) / bins).tolist()
        edges = sorted({_short(edge) for edge in quantiles})
    return ColumnStatistics(
        name=column.name,
        kind=column.kind,
        count=count,
        missing=missing,
        mean=shorten(values.mean(dtype=np.float64)),
        std=_short(values.std(dtype=np.float64)),
        min=shorten(values.min()),
        max=shorten(values.max()),
        edges=edges,
        shares=[] if edges is None else shares_of(values, edges),
    )


def _describe_categories(
    column: Column, count: int, names: Sequence[Any] | pd.Index, counts: npt.NDArray[Any]
) -> ColumnStatistics:
    present = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    shown = [
        i for i in order[:MAX_CATEGORIES] if counts[i] and len(str(names[i])) <= MAX_CATEGORY_LENGTH
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


def _describe_outputs(
    signature: Signature, name: str, values: npt.NDArray[Any], *, bins: int
) -> ColumnStatistics:
    column = Column(name=name, kind=kind_of_classes(signature.classes))
    if signature.classes is None:
        return _describe_numbers(column, len(values), values, bins=bins)
    counts = np.bincount(values, minlength=len(signature.classes))
    return _describe_categories(column, len(values), list(signature.classes), counts)


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")
