"""A part of a data set: one local file, read a block of rows at a time."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from trainer.types import Kind

CELLS_PER_BLOCK = 200_000
MIN_ROWS_PER_BLOCK = 100

Block = dict[str, pa.Array]
"""One Arrow array per column.

From CSV, it holds strings; the column's kind depends on all parts. From Parquet, which is typed, it
holds numbers (float64), booleans or strings.
"""


@dataclass(frozen=True, kw_only=True)
class Part(ABC):
    """A well-formed part.

    Args:
        name: the file's name, for messages.
        columns: all columns except pandas' index.
        kinds: the kind of each column by its Parquet type (None if empty); None for CSV.
        ignore: columns that are not read.
        index: pandas' index column, as messages name it, if there is one.
        is_feedback: whether Tollgate wrote it, from the feedback of callers.
    """

    name: str
    path: Path
    columns: list[str]
    rows: int
    kinds: dict[str, Kind | None] | None = None
    ignore: Collection[str] = ()
    index: str | None = None
    is_feedback: bool = False

    def read(self, columns: Sequence[str] | None = None) -> Iterator[Block]:
        """Read the blocks in order; empty text is null.

        Args:
            columns: None for all.
        """
        wanted = [
            name
            for name in self.columns
            if (columns is None or name in columns) and name not in self.ignore
        ]
        rows = max(MIN_ROWS_PER_BLOCK, CELLS_PER_BLOCK // max(len(wanted), 1))
        return self._read_blocks(wanted, rows)

    @abstractmethod
    def places(self, column: str, rows: list[int]) -> list[str]:
        """Return the places of some rows' cells in a column, as messages name them.

        Args:
            rows: ascending, counted from 0.
        """

    @abstractmethod
    def _read_blocks(self, columns: list[str], rows: int) -> Iterator[Block]:
        """Read some columns in blocks of at most `rows` rows."""
