"""CSV parts: every row is checked on opening, and each block holds strings."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa

from trainer.data.dialect import Dialect, are_empty, count_named
from trainer.data.part import Block, Part
from trainer.errors import DataError, EmptyPart
from trainer.wording import counted

# The name that pandas gives a table's index by default: none.
INDEX_NAMES = ("", "Unnamed: 0")
SPARE = "\n"
"""The name of the empty last column of rows that end with a delimiter; further ones repeat it."""
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, kw_only=True)
class CsvPart(Part):
    """A CSV file.

    Args:
        header: all column names, including pandas' index, and `SPARE` for delimiters at line ends.
        blank_lines: the number of blank lines, which are ignored.
    """

    header: list[str]
    blank_lines: int = 0
    dialect: Dialect = field(default_factory=Dialect)

    def places(self, column: str, rows: list[int]) -> list[str]:
        """Return the lines of some rows' cells in a column: `line 17`."""
        if not rows:
            return []
        found = []
        with self.path.open(encoding=self.dialect.encoding, newline="") as file:
            skipped = sum(1 for _ in islice(file, self.dialect.skip))
            reader = self.dialect.rows(file)
            before, count, wanted = 0, -2, set(rows)
            for row in reader:
                is_row = not is_blank(row, self.header)
                count += is_row
                if is_row and count in wanted:
                    # Earlier cells of the row may contain line breaks.
                    earlier = row[: self.header.index(column)]
                    lines = sum(len(_LINE_END.findall(cell)) for cell in earlier)
                    found.append(f"line {skipped + before + 1 + lines}")
                    if len(found) == len(rows):
                        break
                before = reader.line_num
        return found

    def _read_blocks(self, columns: list[str], rows: int) -> Iterator[Block]:
        if not columns:
            return
        with pd.read_csv(
            self.path,
            sep=self.dialect.delimiter,
            # pandas' parser in C takes delimiters of one byte alone.
            engine="c" if self.dialect.delimiter.isascii() else "python",
            names=self.header,
            # `names` has the header: pandas would invent names for columns without one.
            header=None,
            skiprows=self.dialect.skip,
            usecols=[self.header.index(name) for name in columns],
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skipinitialspace=self.dialect.delimiter != " ",
            index_col=False,
            encoding=self.dialect.encoding,
            chunksize=rows,
        ) as tables:
            is_first = True
            for table in tables:
                cells = table.iloc[1:] if is_first else table
                is_first = False
                yield {
                    column: pa.array(cells[column], pa.large_string(), from_pandas=True)
                    for column in columns
                }


def open_csv(name: str, path: Path, dialect: Dialect, *, is_feedback: bool = False) -> CsvPart:
    """Check every row's length, with `csv`: pandas is faster, but it pads short rows silently.

    Raises:
        EmptyPart: there is no header.
        DataError: a row has more or fewer cells than the header (but for delimiters at its end),
            or a quote is not closed.
    """
    with path.open(encoding=dialect.encoding, newline="") as file:
        skipped = sum(1 for _ in islice(file, dialect.skip))
        rows = dialect.rows(file)
        try:
            header = next((row for row in rows if row), None)
            if header is None:
                raise EmptyPart(f"{name}: the file is empty.")
            index = _IndexColumn(header[0])
            count = blank_lines = 0
            spare = _SpareCells(header)
            for row in rows:
                if is_blank(row, header):
                    blank_lines += 1
                    continue
                if not spare.fits(row):
                    raise DataError(
                        f"{name}: line {skipped + rows.line_num} has "
                        f"{counted(len(row), 'cell')}, the header "
                        f"has {len(header)} (read as {dialect.describe()})."
                    )
                if index.is_one:
                    index.scan(row[0], count)
                count += 1
        except csv.Error as error:
            line = skipped + rows.line_num
            raise DataError(f"{name}: line {line}: {error}.") from error
    columns = spare.columns
    has_index = index.is_one and len(columns) > 1
    return CsvPart(
        name=name,
        path=path,
        columns=columns[1:] if has_index else columns,
        rows=count,
        index=(header[0] or "the first column, without a name") if has_index else None,
        is_feedback=is_feedback,
        header=[*columns, *spare.names],
        blank_lines=blank_lines,
        dialect=dialect,
    )


def is_blank(row: list[str], header: list[str]) -> bool:
    """Return whether a row is an empty line, or one of white space."""
    return not row or (len(row) == 1 < len(header) and not row[0].strip(" \t"))


class _SpareCells:
    """Detects delimiters at the ends of lines, which are no further columns."""

    def __init__(self, header: list[str]) -> None:
        self._header = header
        self._width = count_named(header)
        self._most = len(header) - self._width
        self._are_empty = True

    def fits(self, row: list[str]) -> bool:
        """Return whether a row has as many cells as the header, but for empty ones at its end."""
        if len(row) <= self._width:
            return len(row) == self._width
        is_empty = are_empty(row[self._width :])
        self._most = max(self._most, len(row) - self._width)
        self._are_empty &= is_empty
        return is_empty or len(row) == len(self._header)

    @property
    def names(self) -> list[str]:
        """Return a name for each cell after the last column, if all of them are empty."""
        return [SPARE * (i + 1) for i in range(self._most)] if self._are_empty else []

    @property
    def columns(self) -> list[str]:
        """Return the header without empty columns at its end."""
        return self._header[: self._width] if self._are_empty else self._header


class _IndexColumn:
    """Detects whether the first column is the index of `DataFrame.to_csv`: n, n + 1, …"""

    def __init__(self, name: str) -> None:
        self.is_one = name in INDEX_NAMES
        self._first = 0

    def scan(self, cell: str, count: int) -> None:
        """Check the cell of row `count`."""
        if count == 0 and cell.isdecimal():
            self._first = int(cell)
        self.is_one = cell == str(self._first + count)
