"""All parts as one table: what each column is, decided once, and its values in few bytes."""

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
from trainer.cells import clean_texts, find_cells, show_value
from trainer.column_forms import ColumnForm, Forms, decide_forms, read_floats
from trainer.dataset_file import DatasetFile
from trainer.errors import DataError
from trainer.kinds import Floats, Hashes, Kind, Mask
from trainer.parts import Part

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """N rows of typed columns.

    Args:
        frame: numbers and booleans (1 and 0) as float32, or float64 where that was asked for, with
            NaN for missing; text as categories.
        kinds: None for a column with nothing in it, which `frame` has as a number.
        parts: what it was read from, for as long as their files are there.
        ignored: columns that are not in `frame`, each with the reason.
        notes: what a person should know about how it was read, in sentences.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind | None]
    parts: list[Part]
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self.frame.memory_usage(index=False).sum())

    def place(self, row: int, column: str) -> str:
        """Return where a cell is: `part.csv line 17`."""
        for part, end in zip(self.parts, accumulate(part.rows for part in self.parts), strict=True):
            if row < end:
                return f"{part.name} {part.places(column, [row - end + part.rows])[0]}"
        raise IndexError(row)


def read_table(
    parts: list[Part], *, stated: DatasetFile, precise: Iterable[str], target: str | None = None
) -> Table:
    """Read the parts, text at least twice: to learn what its columns are, and for their values.

    Args:
        precise: columns whose numbers are to be kept as float64.
        target: the column to predict, if it is known; labels keep blanks at their ends, as those
            that differ in nothing else are refused, not made one.

    Raises:
        DataError: the parts have different columns; a column is not of one kind, or not of the one
            that is stated; a number does not fit 32 bits.
    """
    names = _check_names(parts, stated)
    forms = decide_forms(parts, names, stated, target=target)
    rules, rows, exact = stated.value_rules, sum(part.rows for part in parts), set(precise)
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
                f"{part.name}: it has {part.rows:,} rows by one reading and {read:,} by another; "
                "are its lines ended in more than one way?"
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
        ignored=_list_ignored(parts, stated),
        notes=notes,
    )


def _check_names(parts: list[Part], stated: DatasetFile) -> list[str]:
    """The columns to read, in the order of the first part."""
    first, *others = parts
    for part in others:
        same = set(part.columns) == set(first.columns)
        if not same or (part.kinds is None is first.kinds and part.columns != first.columns):
            raise DataError(
                f"{part.name}: its header is not the one of {first.name}"
                f"{_describe_difference(part.columns, first.columns)}."
            )
    for name in [*stated.columns, *stated.ignore]:
        if name not in first.columns and all(name != part.index for part in parts):
            raise DataError(f"dataset.json names a column {name!r}, which is not there.")
    names = [name for name in first.columns if name not in stated.ignore]
    if not names:
        raise DataError("dataset.json ignores every column.")
    return names


def _describe_difference(ours: list[str], theirs: list[str]) -> str:
    more = [name for name in ours if name not in theirs]
    fewer = [name for name in theirs if name not in ours]
    if not more and not fewer:
        return ": the columns are in another order"
    changes = [f"{name!r} is new" for name in more[:3]]
    changes += [f"{name!r} is missing" for name in fewer[:3]]
    return f": {', '.join(changes)}"


def _list_ignored(parts: list[Part], stated: DatasetFile) -> dict[str, str]:
    ignored = {part.index: "pandas' index" for part in parts if part.index is not None}
    return ignored | dict.fromkeys(stated.ignore, "stated in dataset.json")


def _describe_dialects(parts: list[Part], forms: Forms) -> list[str]:
    """How CSV parts are read; one sentence if they are all alike."""
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
    """Refuse numbers beyond 32-bit floats, and the largest of them, which means "no data"."""
    for name, column in columns.items():
        if isinstance(column, _Texts) or column.largest < LARGEST:
            continue
        form, largest = forms.columns[name], column.largest

        def is_largest(values: pa.Array, form: ColumnForm = form, least: float = largest) -> Mask:
            sizes = np.abs(read_floats(values, form, rules))
            return np.asarray(_round_up(sizes) >= min(least, LARGEST))

        found = find_cells(parts, {name: is_largest})[name]
        if largest > LARGEST:
            raise DataError(f"Column {name!r} has numbers beyond 32-bit floats: {found}.")
        raise DataError(
            f"Column {name!r} has the largest 32-bit float in {found.count:,} "
            f"cell{'s' if found.count > 1 else ''}, which looks like a mark for missing values: "
            f'{found}. If it is, add it to "missing" in dataset.json.'
        )


def _round_up(sizes: Floats) -> Floats:
    """Sizes of numbers; those that float32 rounds to its largest, as that."""
    return np.where(np.abs(sizes / LARGEST - 1) < 2.0**-25, LARGEST, sizes)


class _Numbers:
    """A column of numbers or booleans, filled from the top.

    `largest` is the largest size so far.
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
    """A column of text: each different value once, and its number in every row.

    Values are told apart by a hash of 64 bits: Arrow's own way to unify dictionaries takes several
    times the memory of the text.
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
            f"Column {name!r}: {count:,} cells with {show_value(text)} are missing values."
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
        while self._blocks:  # a block goes when its names are copied
            block = self._blocks.pop()
            here = slice(start, start + len(block.dictionary))
            names.append(block.dictionary.filter(pa.array(is_first[here])))
            indices = block.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            codes.append(np.append(numbers[places[here]], np.int32(-1))[indices])
            start = here.stop
        # In one piece, as `take` would make one each time.
        texts = pa.chunked_array(names, pa.large_string()).combine_chunks().to_pandas()
        del names
        # Not by the front door, which would make an object of each name to see that none is there
        # twice.
        dtype = pd.CategoricalDtype._from_fastpath(pd.Index(texts, dtype="str"), ordered=False)
        return pd.Categorical.from_codes(np.concatenate(codes), dtype=dtype, validate=False)
