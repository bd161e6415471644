"""The target: its task, labels and classes."""

import re
import unicodedata
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.records import Label, Signature
from registry.value_rules import BLANKS
from trainer.data.cells import show_value
from trainer.data.config import DatasetConfig
from trainer.data.table import Table
from trainer.errors import DataError
from trainer.types import Indices, Mask, Task
from trainer.wording import counted

MAX_GUESSED_CLASSES = 20
MAX_CLASSES = 200  # a tree model stores one number per class in every leaf
MAX_EXACT_INTEGER = 2.0**53  # float64 skips integers beyond it
MAX_NAMED = 3
_ANY_BLANK = re.compile(f"[{re.escape(BLANKS)}]")

Labels = tuple[npt.NDArray[Any], list[Label] | None]


def choose_target(
    requested: str | None, config: DatasetConfig, before: Signature | None
) -> tuple[str, Task | None]:
    """Return the target, and its task if `dataset.json` or the previous version states it.

    Raises:
        DataError: none of them names a target.
    """
    target = requested or config.target or (before.target if before else None)
    if target is None:
        raise DataError("No target: use --target, or set it in dataset.json.")
    if config.task and config.target in (None, target):
        return target, config.task
    return target, before.task if before and before.target == target else None


def read_target(
    table: Table, kept: Indices, values: pd.Series, *, task: Task | None, config: DatasetConfig
) -> Labels:
    """Return the labels, and the classes in the order of their probabilities.

    Regression has `None` for classes.

    Args:
        kept: the rows of `table` that `values` come from.
        task: None to choose.

    Raises:
        DataError: the target is constant, does not suit the task, or has classes that differ only
            in case or white space.
    """
    target = str(values.name)
    kind = table.kinds[target]
    if kind in ("datetime", "sentence"):
        raise DataError(f"The target {target!r} is {kind}, which cannot be predicted.")
    if config.classes is not None and kind != "text":
        raise DataError(f'dataset.json has "classes", but the target {target!r} is {kind}.')
    if values.nunique() < 2:
        raise DataError(f"The target {target!r} has only one value: {show_value(values.iloc[0])}.")
    if kind == "boolean" and task != "regression":
        return values.to_numpy().astype(np.int64), [False, True]

    def place(mask: Mask) -> str:
        row = int(mask.argmax())
        return f"{table.place(int(kept[row]), target)}: {show_value(values.iloc[row])}"

    if kind == "text":
        if task == "regression":
            raise DataError(
                f"The target {target!r} is text, which regression cannot predict: "
                f"{place(np.ones(len(values), dtype=np.bool_))}."
            )
        different = values.nunique()
        if task is None and different > MAX_GUESSED_CLASSES:
            raise DataError(
                f"The target {target!r} is text with {different} distinct values, such as "
                f"{place(_are_words(values))}; if they are classes, set "
                '"task": "classification" in dataset.json.'
            )
        _check_count(different, target)
        labels = _read_classes(values, target, config, place)
        # Objects, because numpy pads strings to the longest: one damaged cell would cost as much
        # memory in every row.
        names = np.array([str(name) for name in labels.categories], dtype=object)
        texts = names[labels.codes]
        return texts, np.unique(texts).tolist()

    numbers = values.to_numpy(dtype=np.float64)
    is_whole = (numbers == np.round(numbers)) & (np.abs(numbers) <= MAX_EXACT_INTEGER)
    few = values.nunique() <= MAX_GUESSED_CLASSES
    if task == "regression" or (task is None and not (is_whole.all() and few)):
        return numbers, None
    if not is_whole.all():
        raise DataError(
            f"The target {target!r} has fractions, which cannot be classes: {place(~is_whole)}."
        )
    _check_count(int(values.nunique()), target)
    return numbers.astype(np.int64), [int(label) for label in np.unique(numbers)]


def _are_words(values: pd.Series) -> Mask:
    """Return where the text is no number, in a target that is numbers but for some words."""
    numbers = pd.to_numeric(pd.Series(values.array.categories), errors="coerce")
    return np.asarray(numbers.isna().to_numpy()[values.array.codes])


def _read_classes(
    values: pd.Series, target: str, config: DatasetConfig, place: Any
) -> pd.Categorical:
    """Return the trimmed labels as categories, without unused ones."""
    labels = values.array
    trimmed = [str(name).strip(BLANKS) for name in labels.categories]
    if config.classes is not None:
        unknown = np.array([name not in config.classes for name in trimmed])
        if unknown.any():
            is_unknown = unknown[labels.codes]
            raise DataError(
                f"The target {target!r} has labels that are not in dataset.json's classes "
                f"({counted(int(is_unknown.sum()), 'row')}): {place(is_unknown)}."
            )
    else:
        counts = np.bincount(labels.codes, minlength=len(trimmed)).tolist()
        _refuse_similar(dict(zip(map(str, labels.categories), counts, strict=True)), target)
    names, positions = np.unique(np.array(trimmed, dtype=object), return_inverse=True)
    return pd.Categorical.from_codes(positions[labels.codes], categories=names)


def _refuse_similar(counts: dict[str, int], target: str) -> None:
    """Refuse classes that look the same to a person.

    Args:
        counts: the number of rows of each class.
    """
    alike: dict[str, list[str]] = {}
    for label in counts:
        alike.setdefault(_simplify(label), []).append(label)
    groups = [sorted(labels, key=lambda each: -counts[each]) for labels in alike.values()]
    groups = [labels for labels in groups if len(labels) > 1]
    if not groups:
        return
    similar = "; ".join(
        ", ".join(
            f"{show_value(label)} ({counted(counts[label], 'row')})" for label in labels[:MAX_NAMED]
        )
        for labels in groups[:MAX_NAMED]
    )
    raise DataError(
        f"The target {target!r} has classes that differ only in case or white space: {similar}. "
        'Correct the data; if they are different classes, list them all as "classes" in '
        "dataset.json."
    )


def _simplify(label: str) -> str:
    return _ANY_BLANK.sub("", unicodedata.normalize("NFKC", label)).casefold()


def _check_count(different: int, target: str) -> None:
    if different > MAX_CLASSES:
        raise DataError(
            f"The target {target!r} has {different} classes; the maximum is {MAX_CLASSES}."
            " Is it an identifier?"
        )
