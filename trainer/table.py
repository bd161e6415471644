"""All parts as one table: what each column is, decided once, and its values in few bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from trainer.dataset_file import DatasetFile
from trainer.errors import DataError
from trainer.kinds import Floats, Hashes, Kind
from trainer.parts import Part

LARGEST = float(np.finfo(np.float32).max)
TRUTH = pa.array(["true", "false"], pa.large_string())


@dataclass(frozen=True)
class Table:
    """N rows of typed columns.

    Args:
        frame: numbers and booleans (1 and 0) as float32, or float64 where that was asked for, with
            NaN for missing; text as categories.
        kinds: None for a column with nothing in it, which `frame` has as a number.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind | None]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self.frame.memory_usage(index=False).sum())


def read_table(parts: list[Part], *, stated: DatasetFile, precise: Iterable[str]) -> Table:
    """Read the parts, CSV twice: to learn what its columns are, and for their values.

    A CSV column is `boolean` if all that is there says true or false, `number` if it is numbers,
    else `text`, unless `dataset.json` says otherwise. Parquet's types stand.

    Args:
        precise: columns whose numbers are to be kept as float64.

    Raises:
        DataError: the parts have different columns, or a column is not the same kind in all of
            them, or not the kind that was stated; a number does not fit 32 bits.
    """
    first, *others = parts
    for part in others:
        same = set(part.columns) == set(first.columns)
        if not same or (part.kinds is None is first.kinds and part.columns != first.columns):
            raise DataError(f"{part.name}: its header is not the one of {first.name}.")
    for name in [*stated.columns, *stated.ignore]:
        if name not in first.columns:
            raise DataError(f"dataset.json names a column {name!r}, which is not there.")
    names = [name for name in first.columns if name not in stated.ignore]
    if not names:
        raise DataError("dataset.json ignores every column.")
    kinds = _decide_kinds(parts, names, stated.columns)

    rows, exact = sum(part.rows for part in parts), set(precise)
    columns: dict[str, _Texts | _Numbers] = {
        name: _Texts() if kinds[name] == "text" else _Numbers(name, rows, exact=name in exact)
        for name in names
    }
    for part in parts:
        read = 0
        for block in part.read():
            read += len(block[names[0]])
            if read <= part.rows:
                for name, column in columns.items():
                    column.add(block[name])
        if read != part.rows:
            raise DataError(
                f"{part.name}: it has {part.rows:,} rows by one reading and {read:,} by another; "
                "are its lines ended in more than one way?"
            )
    values = {name: columns.pop(name).finish() for name in names}
    pa.default_memory_pool().release_unused()
    return Table(pd.DataFrame(values, index=pd.RangeIndex(rows), copy=False), kinds)


def _decide_kinds(
    parts: list[Part], names: list[str], stated: dict[str, Kind]
) -> dict[str, Kind | None]:
    kinds: dict[str, Kind | None] = dict.fromkeys(names)
    told: dict[str, str] = {}  # the part that a kind comes from

    def agree(name: str, kind: Kind | None, part: str) -> None:
        if kind is None:
            return
        if kinds[name] not in (None, kind):
            raise DataError(
                f"{part}: the column {name!r} is {kind}, but {kinds[name]} in {told[name]}."
            )
        kinds[name], told[name] = kind, part

    for part in parts:
        if part.kinds is not None:
            for name in names:
                kind, wish = part.kinds[name], stated.get(name)
                if wish is not None and kind not in (None, wish):
                    raise DataError(f"{part.name}: the column {name!r} is {kind}, not {wish}.")
                agree(name, kind, part.name)
    written = [part for part in parts if part.kinds is None]
    for name, guess in _guess_kinds(written, names).items():
        wish = stated.get(name)
        if wish is not None and not guess.suits(wish):
            raise DataError(f"The column {name!r} holds what is no {wish}.")
        agree(name, wish or guess.kind, written[0].name)
    return {name: kind or stated.get(name) for name, kind in kinds.items()}


class _Guess:
    """What a CSV column may still be, after the cells seen so far."""

    def __init__(self) -> None:
        self.is_empty = self.may_be_boolean = self.may_be_number = True

    def see(self, texts: pa.Array) -> None:
        present = texts.drop_null()
        if not len(present):
            return
        self.is_empty = False
        if self.may_be_boolean:
            lower = pc.utf8_lower(present)
            self.may_be_boolean = bool(pc.all(pc.is_in(lower, TRUTH)).as_py())
        if self.may_be_number:
            self.may_be_number = not np.isnan(_parse(present)).any()

    @property
    def kind(self) -> Kind | None:
        if self.is_empty:
            return None
        return "boolean" if self.may_be_boolean else "number" if self.may_be_number else "text"

    def suits(self, kind: Kind) -> bool:
        return kind == "text" or self.kind in (None, kind)


def _guess_kinds(parts: list[Part], names: list[str]) -> dict[str, _Guess]:
    if not parts:
        return {}
    guesses = {name: _Guess() for name in names}
    for part in parts:
        for block in part.read():
            for name, guess in guesses.items():
                guess.see(block[name])
    return guesses


class _Numbers:
    """A column of numbers or booleans, filled from the top."""

    def __init__(self, name: str, rows: int, *, exact: bool) -> None:
        self._name = name
        self._values = np.empty(rows, dtype=np.float64 if exact else np.float32)
        self._filled = 0

    def add(self, block: pa.Array) -> None:
        numbers = _to_floats(block)
        # Compared to the end: `abs` of NaN is no more than anything.
        if (np.abs(numbers) > LARGEST).any():
            raise DataError(f"The column {self._name!r} has numbers beyond 32-bit floats.")
        self._values[self._filled : self._filled + len(numbers)] = numbers
        self._filled += len(numbers)

    def finish(self) -> npt.NDArray[Any]:
        return self._values


class _Texts:
    """A column of text: each different value once, and its number in every row.

    Values are told apart by a hash of 64 bits: Arrow's own way to unify dictionaries takes several
    times the memory of the text.
    """

    def __init__(self) -> None:
        self._blocks: list[pa.DictionaryArray] = []
        self._hashes: list[Hashes] = [np.empty(0, dtype=np.uint64)]

    def add(self, block: pa.Array) -> None:
        texts = block if pa.types.is_large_string(block.type) else block.cast(pa.large_string())
        encoded = texts.dictionary_encode()
        names = encoded.dictionary.to_numpy(zero_copy_only=False)
        self._blocks.append(encoded)
        self._hashes.append(pd.util.hash_array(names, categorize=False))

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


def _to_floats(block: pa.Array) -> Floats:
    """As float64, NaN for null; true and false, also as text, are 1 and 0."""
    if pa.types.is_large_string(block.type):
        lower = pc.utf8_lower(block)
        if pc.any(pc.is_in(lower, TRUTH)).as_py():
            block = pc.equal(lower, "true")
        else:
            return _parse(block)
    if pa.types.is_boolean(block.type):
        block = block.cast(pa.float64())
    return np.asarray(block.to_numpy(zero_copy_only=False), dtype=np.float64)


def _parse(texts: pa.Array) -> Floats:
    """Numbers from text; NaN where a cell is null or is no number."""
    try:
        numbers = pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:  # some are none, or are written as only pandas knows
        series = texts.to_pandas()
        return np.asarray(pd.to_numeric(series, errors="coerce"), dtype=np.float64)
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
