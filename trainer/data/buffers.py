"""Columns of a table under construction, filled block by block."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from registry.value_rules import BLANKS, ValueRules
from trainer.data.cells import clean_texts, show_value
from trainer.data.part import Part
from trainer.data.schema import ColumnSchema, read_floats
from trainer.types import Floats, Hashes
from trainer.wording import counted

LARGEST = float(np.finfo(np.float32).max)


class NumberBuffer:
    """A column of numbers, booleans or times, filled block by block.

    `largest` is the largest absolute value so far.
    """

    def __init__(
        self, rows: int, column: ColumnSchema, rules: ValueRules, *, precise: bool
    ) -> None:
        self._values = np.empty(rows, dtype=np.float64 if precise else np.float32)
        self._column, self._rules = column, rules
        self._filled = 0
        self._counter = CounterScan()
        self.largest = 0.0

    @property
    def counts(self) -> bool:
        """Return whether the numbers are whole and grow from row to row in each part."""
        return self._column.kind == "number" and self._counter.counts

    def add(self, part: Part, values: pa.Array) -> None:
        """Append the cells of a part's next block."""
        numbers = read_floats(values, self._column, self._rules, part)
        if not part.is_feedback:
            self._counter.scan(part.name, numbers)
        sizes = round_up(np.abs(numbers[~np.isnan(numbers)]))
        self.largest = max(self.largest, float(sizes.max(initial=0.0)))
        with np.errstate(over="ignore"):
            self._values[self._filled : self._filled + len(numbers)] = numbers
        self._filled += len(numbers)

    def finish(self) -> npt.NDArray[Any]:
        """Return all values."""
        return self._values


class CounterScan:
    """Detects whole numbers that grow from row to row in each part, and are unique."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[float, float]] = {}
        self._grows = True

    def scan(self, part: str, numbers: Floats) -> None:
        """Scan the next numbers of a part."""
        if not self._grows or not len(numbers):
            return
        first, last = self._spans.get(part, (numbers[0], -np.inf))
        grows = numbers[0] > last and bool((np.diff(numbers) > 0).all())  # NaN does not
        self._grows = grows and bool((numbers == np.floor(numbers)).all())
        self._spans[part] = first, float(numbers[-1])

    @property
    def counts(self) -> bool:
        """Return whether that is true of all numbers so far, and there are some."""
        spans = sorted(self._spans.values())
        is_apart = all(end < start for (_, end), (start, _) in pairwise(spans))
        return self._grows and bool(spans) and is_apart


class TextBuffer:
    """A dictionary-encoded column of text.

    Values are identified by a 64-bit hash: Arrow's own dictionary unification takes several times
    the memory of the text.
    """

    def __init__(self, rules: ValueRules, *, keep_blanks: bool) -> None:
        self._rules, self._keep_blanks = rules, keep_blanks
        self._missing: Counter[str] = Counter()
        self._blocks: list[pa.DictionaryArray] = []
        self._hashes: list[Hashes] = [np.empty(0, dtype=np.uint64)]

    def add(self, part: Part, values: pa.Array) -> None:
        """Append the cells of a part's next block."""
        texts = values if pa.types.is_large_string(values.type) else values.cast(pa.large_string())
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
            f"Column {name!r}: {counted(count, 'cell')} with {show_value(text)} "
            f"{'counts' if count == 1 else 'count'} as missing."
            for text, count in self._missing.most_common()
            if text
        ]

    def finish(self) -> pd.Categorical:
        """Return all values as categories, in the order of their first rows."""
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


def round_up(sizes: Floats) -> Floats:
    """Return sizes of numbers; those that float32 rounds to its largest become that."""
    return np.where(np.abs(sizes / LARGEST - 1) < 2.0**-25, LARGEST, sizes)
