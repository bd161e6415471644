"""Guess what columns of text are from all of their values: categories, sentences or identifiers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from registry.features import count_words
from trainer.data.schema import ColumnSchema
from trainer.types import Kind

MIN_MEAN_WORDS = 4
MIN_UNIQUE_SENTENCES = 0.5
"""Distinct values per cell; with fewer, long texts are categories."""
MIN_UNIQUE_IDENTIFIERS = 0.9
"""The same of identifiers, once there is a previous version; at first, all cells must differ."""
MIN_VALUES = 20
SAMPLE = 1_000


@dataclass(frozen=True)
class Roles:
    """What is known about columns before their values are read.

    Args:
        stated: columns whose kinds are in `dataset.json`.
        previous: the kinds of the previous version's columns; None without such a version.
        special: the target, the group and the time.
    """

    stated: Collection[str] = ()
    previous: Mapping[str, Kind] | None = None
    special: Collection[str] = ()

    def keeps(self, name: str) -> bool:
        """Return whether the previous version has a column, so that it stays what it is."""
        return name in (self.previous or {})


@dataclass
class Guesses:
    """What the columns are.

    Args:
        ignored: columns that are not features, with the reasons.
    """

    kinds: dict[str, Kind | None]
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def guess_columns(
    schema: Mapping[str, ColumnSchema],
    values: Mapping[str, Any],
    counting: Collection[str],
    roles: Roles,
) -> Guesses:
    """Find the sentences and identifiers among columns whose kinds are not stated.

    Identifiers are ignored, unless the previous version has them, or there is no other feature.

    Args:
        values: text as categories.
        counting: columns of whole numbers that grow from row to row.
    """
    guesses = Guesses({name: column.kind for name, column in schema.items()})
    identifiers: dict[str, str] = {}
    least = 1.0 if roles.previous is None else MIN_UNIQUE_IDENTIFIERS
    for name, column in schema.items():
        if name in roles.special or name in roles.stated:
            continue
        if column.looks_like is not None and column.kind is not None:
            guesses.warnings.append(_describe_kept(name, column.kind, column.looks_like))
        if name in counting and len(values[name]) >= MIN_VALUES:
            identifiers[name] = "whole numbers that grow from row to row"
        elif column.kind == "text" and column.looks_like is None:
            _guess_text(guesses, name, values[name], roles)
            if guesses.kinds[name] == "text" and _are_unique(values[name], least=least):
                identifiers[name] = "text that is different in each row"
    features = [name for name in schema if name not in (*roles.special, *identifiers)]
    for name, why in identifiers.items():
        _note_identifier(guesses, name, why, is_used=roles.keeps(name) or not features)
    return guesses


def _guess_text(guesses: Guesses, name: str, values: pd.Categorical, roles: Roles) -> None:
    previous = (roles.previous or {}).get(name)
    is_sentence = _are_sentences(values)
    if previous == "sentence" or (is_sentence and previous != "text"):
        guesses.kinds[name] = "sentence"
        guesses.notes.append(f"Column {name!r} is read as sentences, which count by their words.")
    elif is_sentence:
        guesses.warnings.append(_describe_kept(name, "text", "sentence"))


def _note_identifier(guesses: Guesses, name: str, why: str, *, is_used: bool) -> None:
    """Ignore an identifier with a warning, or warn that it is used."""
    if is_used:
        guesses.warnings.append(
            f"Column {name!r} is used, although it looks like an identifier: {why}. To leave it "
            'out, add it to "ignore" in dataset.json.'
        )
        return
    guesses.ignored[name] = "looks like an identifier"
    guesses.warnings.append(
        f"Column {name!r} is ignored, because it looks like an identifier: {why}. If it is not, "
        'state its kind under "columns" in dataset.json.'
    )


def _are_sentences(values: pd.Categorical) -> bool:
    distinct = len(values.categories)
    if distinct < MIN_VALUES or distinct < MIN_UNIQUE_SENTENCES * _count(values):
        return False
    sample = values.categories[:: max(1, distinct // SAMPLE)]
    return float(np.mean([count_words(str(text)) for text in sample])) >= MIN_MEAN_WORDS


def _are_unique(values: pd.Categorical, *, least: float) -> bool:
    distinct = len(values.categories)
    return distinct >= MIN_VALUES and distinct >= least * _count(values)


def _count(values: pd.Categorical) -> int:
    return int(np.count_nonzero(values.codes >= 0))


def _describe_kept(name: str, kept: Kind, looks_like: Kind) -> str:
    return (
        f"Column {name!r} looks like {looks_like}, but stays {kept}, as in the previous version; "
        f'to change it, set "columns": {{"{name}": "{looks_like}"}} in dataset.json.'
    )
