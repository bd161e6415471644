"""Read all parts into one compact, typed table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from services.common.features import BLANKS, ValueRules
from trainer.data.cells import clean_texts, find_cells, show_value
from trainer.data.config import DatasetConfig
from trainer.data.part import Part
from trainer.data.schema import ColumnForm, Forms, decide_forms, read_floats
from trainer.errors import DataError
from trainer.types import Floats, Hashes, Kind, Mask

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """N rows of typed columns.

    Args:
        frame: numbers and booleans (1 and 0) as float32 (float64 if requested), with NaN for
            missing; text as categories.
        kinds: None for an empty column, which is a number in `frame`.
        parts: the source files, as long as they exist.
        ignored: columns that are not in `frame`, with the reasons.
        notes: sentences about how the data was read.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind | None]
    parts: list[Part]
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Return the size in memory in bytes."""
        return int(self.frame.memory_usage(index=False).sum())

    def place(self, row: int, column: str) -> str:
        """Return the place of a cell, such as `part.csv line 17`."""
        for part, end in zip(self.parts, accumulate(part.rows for part in self.parts), strict=True):
            if row < end:
                return f"{part.name} {part.places(column, [row - end + part.rows])[0]}"
        raise IndexError(row)


def read_table(
    parts: list[Part], *, config: DatasetConfig, precise: Iterable[str], target: str | None = None
) -> Table:
    """Read the parts; text is read at least twice, to decide kinds and then for the values.

    Args:
        precise: columns to keep as float64.
        target: the column to predict, if known. Its labels are not trimmed, so that labels that
            differ only in blanks can be refused rather than merged.

    Raises:
        DataError: the parts have different columns; a column has mixed kinds or not the configured
            kind; or a number does not fit 32 bits.
    """
    names = _check_names(parts, config)
    forms = decide_forms(parts, names, config, target=target)
    rules, rows, exact = config.value_rules, sum(part.rows for part in parts), set(precise)
    columns: dict[str, _Texts | _Numbers] = {
        name: _Texts(rules, keep_blanks=name == target)
        if form.kind == "text"
        else _Numbers(rows, form, rules, exact=name in exact)
        for name, form in forms.columns.items()
    }
    for part in parts:
        read = 0
        for block in part.read(names):
            read += len(block[names[0]])
            if read <= part.rows:
                for name, column in columns.items():
                    column.add(block[name])
        if read != part.rows:
            raise DataError(
                f"{part.name}: found {part.rows:,} rows on the first pass and {read:,} on the "
                "second; are its line endings mixed?"
            )
    _check_size(parts, columns, forms, rules)
    notes = [*_describe_dialects(parts, forms), *forms.notes]
    for name, column in columns.items():
        if isinstance(column, _Texts):
            notes += column.describe_missing(name)
    values = {name: columns.pop(name).finish() for name in names}
    pa.default_memory_pool().release_unused()
    return Table(
        pd.DataFrame(values, index=pd.RangeIndex(rows), copy=False),
        {name: form.kind for name, form in forms.columns.items()},
        parts,
        ignored=_list_ignored(parts, config),
        notes=notes,
    )


def _check_names(parts: list[Part], config: DatasetConfig) -> list[str]:
    """Return the columns to read, in the order of the first part."""
    first, *others = parts
    for part in others:
        same = set(part.columns) == set(first.columns)
        if not same or (part.kinds is None is first.kinds and part.columns != first.columns):
            raise DataError(
                f"{part.name}: its header differs from that of {first.name}"
                f"{_describe_difference(part.columns, first.columns)}."
            )
    for name in [*config.columns, *config.ignore]:
        if name not in first.columns and all(name != part.index for part in parts):
            raise DataError(f"dataset.json: column {name!r} does not exist.")
    names = [name for name in first.columns if name not in config.ignore]
    if not names:
        raise DataError("dataset.json: every column is ignored.")
    return names


def _describe_difference(ours: list[str], theirs: list[str]) -> str:
    more = [name for name in ours if name not in theirs]
    fewer = [name for name in theirs if name not in ours]
    if not more and not fewer:
        return ": the columns are in a different order"
    changes = [f"{name!r} is new" for name in more[:3]]
    changes += [f"{name!r} is missing" for name in fewer[:3]]
    return f": {', '.join(changes)}"


def _list_ignored(parts: list[Part], config: DatasetConfig) -> dict[str, str]:
    ignored = {part.index: "pandas' index" for part in parts if part.index is not None}
    return ignored | dict.fromkeys(config.ignore, "ignored in dataset.json")


def _describe_dialects(parts: list[Part], forms: Forms) -> list[str]:
    """Describe how the CSV parts are read, in one sentence per dialect."""
    written = [part for part in parts if part.kinds is None]
    if not written:
        return []
    counts = Counter(part.dialect.describe() for part in written)
    signs = {
        form.style.decimal
        for form in forms.columns.values()
        if form.kind == "number" and form.is_written
    }
    decimal = ", decimal comma" if signs == {","} else ", decimal point" if signs == {"."} else ""
    if len(counts) == 1:
        return [f"Read as: {next(iter(counts))}{decimal}."]
    first = {part.dialect.describe(): part.name for part in reversed(written)}
    return [
        f"Read as {dialect}{decimal}: {name} and {counts[dialect] - 1:,} other files."
        for dialect, name in first.items()
    ]


def _check_size(
    parts: list[Part],
    columns: "dict[str, _Texts | _Numbers]",
    forms: Forms,
    rules: ValueRules,
) -> None:
    """Refuse numbers beyond 32-bit floats, and the largest float, a usual mark for "no data"."""
    for name, column in columns.items():
        if isinstance(column, _Texts) or column.largest < LARGEST:
            continue
        form, largest = forms.columns[name], column.largest

        def is_largest(values: pa.Array, form: ColumnForm = form, least: float = largest) -> Mask:
            sizes = np.abs(read_floats(values, form, rules))
            return np.asarray(_round_up(sizes) >= min(least, LARGEST))

        found = find_cells(parts, {name: is_largest})[name]
        if largest > LARGEST:
            raise DataError(f"Column {name!r} has numbers too large for 32-bit floats: {found}.")
        raise DataError(
            f"Column {name!r} has the largest 32-bit float in {found.count:,} "
            f"cell{'s' if found.count > 1 else ''}, which looks like a mark for missing values: "
            f'{found}. If it is, add it to "missing" in dataset.json.'
        )


def _round_up(sizes: Floats) -> Floats:
    """Return sizes of numbers; those that float32 rounds to its largest become that."""
    return np.where(np.abs(sizes / LARGEST - 1) < 2.0**-25, LARGEST, sizes)


class _Numbers:
    """A column of numbers or booleans, filled block by block.

    `largest` is the largest absolute value so far.
    """

    def __init__(self, rows: int, form: ColumnForm, rules: ValueRules, *, exact: bool) -> None:
        self._values = np.empty(rows, dtype=np.float64 if exact else np.float32)
        self._form, self._rules = form, rules
        self._filled = 0
        self.largest = 0.0

    def add(self, block: pa.Array) -> None:
        numbers = read_floats(block, self._form, self._rules)
        sizes = _round_up(np.abs(numbers[~np.isnan(numbers)]))
        self.largest = max(self.largest, float(sizes.max(initial=0.0)))
        with np.errstate(over="ignore"):
            self._values[self._filled : self._filled + len(numbers)] = numbers
        self._filled += len(numbers)

    def finish(self) -> npt.NDArray[Any]:
        return self._values


class _Texts:
    """A dictionary-encoded column of text.

    Values are identified by a 64-bit hash: Arrow's own dictionary unification takes several times
    the memory of the text.
    """

    def __init__(self, rules: ValueRules, *, keep_blanks: bool) -> None:
        self._rules, self._keep_blanks = rules, keep_blanks
        self._missing: Counter[str] = Counter()
        self._blocks: list[pa.DictionaryArray] = []
        self._hashes: list[Hashes] = [np.empty(0, dtype=np.uint64)]

    def add(self, block: pa.Array) -> None:
        texts = block if pa.types.is_large_string(block.type) else block.cast(pa.large_string())
        cleaned = clean_texts(texts, self._rules)
        if cleaned.null_count > texts.null_count:
            lost = texts.filter(pc.and_(cleaned.is_null(), texts.is_valid()))
            for entry in pc.value_counts(lost).to_pylist():
                self._missing[entry["values"].strip(BLANKS)] += entry["counts"]
        if self._keep_blanks:
            cleaned = pc.if_else(cleaned.is_valid(), texts, pa.scalar(None, pa.large_string()))
        encoded = cleaned.dictionary_encode()
        names = encoded.dictionary.to_numpy(zero_copy_only=False)
        self._blocks.append(encoded)
        self._hashes.append(pd.util.hash_array(names, categorize=False))

    def describe_missing(self, name: str) -> list[str]:
        """Return a sentence for each word that is read as missing."""
        return [
            f"Column {name!r}: {count:,} cells with {show_value(text)} count as missing."
            for text, count in self._missing.most_common()
            if text
        ]

    def finish(self) -> pd.Categorical:
        _, first, places = np.unique(
            np.concatenate(self._hashes), return_index=True, return_inverse=True
        )
        order = np.argsort(first)
        numbers = np.empty(len(first), dtype=np.int32)
        numbers[order] = np.arange(len(first), dtype=np.int32)
        is_first = np.zeros(len(places), dtype=np.bool_)
        is_first[first] = True

        names, codes, start = [], [np.empty(0, dtype=np.int32)], 0
        self._blocks.reverse()
        while self._blocks:  # free each block once its names are copied
            block = self._blocks.pop()
            here = slice(start, start + len(block.dictionary))
            names.append(block.dictionary.filter(pa.array(is_first[here])))
            indices = block.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            codes.append(np.append(numbers[places[here]], np.int32(-1))[indices])
            start = here.stop
        # Combine once; `take` would do so on every call.
        texts = pa.chunked_array(names, pa.large_string()).combine_chunks().to_pandas()
        del names
        # The public constructor would create an object per name to check that they are unique.
        dtype = pd.CategoricalDtype._from_fastpath(pd.Index(texts, dtype="str"), ordered=False)
        return pd.Categorical.from_codes(np.concatenate(codes), dtype=dtype, validate=False)
