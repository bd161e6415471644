"""The parts of a data set: local CSV or Parquet files, read a block at a time.

A block is one Arrow array per column. From CSV, it holds strings; the column's kind depends on all
parts. From Parquet, which is typed, it holds numbers (float64), booleans or strings.
"""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.data.config import CsvSettings
from trainer.data.dialect import Dialect, find_dialect
from trainer.errors import DataError, EmptyPart
from trainer.types import Kind

CELLS_PER_BLOCK = 200_000
# The columns in which pandas writes a table's index by default.
PARQUET_INDEX = re.compile(r"__index_level_\d+__")
CSV_INDEX = ("", "Unnamed: 0")
_LINE_END = re.compile(r"\r\n|\r|\n")

Block = dict[str, pa.Array]


@dataclass(frozen=True)
class Part:
    """A well-formed part.

    Args:
        columns: all columns except pandas' index.
        kinds: the kind of each column by its Parquet type (None if empty); None for CSV.
        ignore: columns that are not read.
        index: pandas' index column, as messages name it, if there is one.
        header: all column names of a CSV part.
        dialect: of a CSV part.
    """

    name: str
    path: Path
    columns: list[str]
    rows: int
    kinds: dict[str, Kind | None] | None = None
    ignore: Collection[str] = ()
    index: str | None = None
    header: list[str] = field(default_factory=list)
    dialect: Dialect = field(default_factory=Dialect)

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
        at_once = max(100, CELLS_PER_BLOCK // max(len(wanted), 1))
        if self.kinds is None:
            return _read_csv(self, wanted, at_once)
        return _read_parquet(self, wanted, at_once)

    def places(self, column: str, rows: list[int]) -> list[str]:
        """Return the places of some rows' cells in a column: `line 17`, or `row 5` for Parquet.

        Args:
            rows: ascending, counted from 0.
        """
        if self.kinds is not None or not rows:
            return [f"row {row + 1}" for row in rows]
        found = []
        with self.path.open(encoding=self.dialect.encoding, newline="") as file:
            skipped = sum(1 for _ in islice(file, self.dialect.skip))
            reader = self.dialect.rows(file)
            before, count, wanted = 0, -2, set(rows)
            for row in reader:
                count += bool(row)
                if row and count in wanted:
                    # Earlier cells of the row may contain line breaks.
                    earlier = row[: self.header.index(column)]
                    lines = sum(len(_LINE_END.findall(cell)) for cell in earlier)
                    found.append(f"line {skipped + before + 1 + lines}")
                    if len(found) == len(rows):
                        break
                before = reader.line_num
        return found


def open_part(
    name: str,
    path: Path,
    *,
    ignore: Collection[str] = (),
    settings: CsvSettings | None = None,
) -> Part:
    """Check that a part is well-formed.

    Args:
        name: its name in messages; the suffix says the format.
        ignore: columns that may have any type, because they are not read.
        settings: the configured CSV dialect.

    Raises:
        EmptyPart: the file is empty; there is not even a header.
        DataError: the file is damaged; a column has no name or a duplicate one; a CSV row has more
            or fewer cells than the header; or a Parquet column has an unsupported type.
    """
    if path.stat().st_size == 0:
        raise EmptyPart(f"{name}: the file is empty.")
    if name.lower().endswith(".parquet"):
        part = _open_parquet(name, path, ignore)
    else:
        part = _open_csv(name, path, find_dialect(name, path, settings or CsvSettings()))
    if "" in part.columns:
        raise DataError(f"{name}: column {part.columns.index('') + 1} has no name.")
    doubled = {column for column in part.columns if part.columns.count(column) > 1}
    if doubled:
        raise DataError(f"{name}: duplicate column {min(doubled)!r}.")
    return part


def _open_csv(name: str, path: Path, dialect: Dialect) -> Part:
    """Check every row's length with `csv`: pandas is faster, but it pads short rows silently."""
    with path.open(encoding=dialect.encoding, newline="") as file:
        skipped = sum(1 for _ in islice(file, dialect.skip))
        rows = dialect.rows(file)
        try:
            header = next((row for row in rows if row), None)
            if header is None:
                raise EmptyPart(f"{name}: the file is empty.")
            index = _IndexColumn(header[0])
            count = 0
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{name}: line {skipped + rows.line_num} has {len(row)} cells, the header "
                        f"has {len(header)} (read as {dialect.describe()})."
                    )
                if index.is_one:
                    index.scan(row[0], count)
                count += 1
        except csv.Error as error:
            line = skipped + rows.line_num
            raise DataError(f"{name}: line {line}: {error}.") from error
    if index.is_one and len(header) > 1:
        called = header[0] or "the first column, without a name"
        return Part(name, path, header[1:], count, index=called, header=header, dialect=dialect)
    return Part(name, path, header, count, header=header, dialect=dialect)


class _IndexColumn:
    """Detects whether the first column is the index of `DataFrame.to_csv`: n, n + 1, …"""

    def __init__(self, name: str) -> None:
        self.is_one = name in CSV_INDEX
        self._first = 0

    def scan(self, cell: str, count: int) -> None:
        """Check the cell of row `count`."""
        if count == 0 and cell.isdecimal():
            self._first = int(cell)
        self.is_one = cell == str(self._first + count)


def _read_csv(part: Part, columns: list[str], at_once: int) -> Iterator[Block]:
    if not columns:
        return
    with pd.read_csv(
        part.path,
        sep=part.dialect.delimiter,
        # pandas' parser in C takes delimiters of one byte alone.
        engine="c" if part.dialect.delimiter.isascii() else "python",
        names=part.header,
        # `names` has the header: pandas would invent names for columns without one.
        header=None,
        skiprows=part.dialect.skip,
        usecols=[part.header.index(name) for name in columns],
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        skipinitialspace=part.dialect.delimiter != " ",
        index_col=False,
        encoding=part.dialect.encoding,
        chunksize=at_once,
    ) as tables:
        is_first = True
        for table in tables:
            rows = table.iloc[1:] if is_first else table
            is_first = False
            yield {
                column: pa.array(rows[column], pa.large_string(), from_pandas=True)
                for column in columns
            }


def _open_parquet(name: str, path: Path, ignore: Collection[str]) -> Part:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a readable Parquet file.") from error
    with file:
        schema = file.schema_arrow
        index = [column for column in schema.names if PARQUET_INDEX.fullmatch(column)]
        names = [column for column in schema.names if column not in index]
        kinds = {
            column: None if column in ignore else _kind_of(name, schema.field(column))
            for column in names
            if schema.names.count(column) == 1
        }
        return Part(
            name,
            path,
            names,
            file.metadata.num_rows,
            kinds,
            ignore,
            index=", ".join(index) or None,
        )


def _read_parquet(part: Part, columns: list[str], at_once: int) -> Iterator[Block]:
    with pq.ParquetFile(part.path) as file:
        try:
            for batch in file.iter_batches(batch_size=at_once, columns=columns):
                yield {column: _plain(batch.column(column)) for column in columns}
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{part.name}: the file is damaged.") from error


def _kind_of(name: str, field: pa.Field) -> Kind | None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if _is_text(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "text"
    raise DataError(f"{name}: column {field.name!r} has the unsupported type {kind}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _plain(values: pa.Array) -> pa.Array:
    """Convert a Parquet column to float64, booleans or strings; dates become ISO 8601."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        return values
    if pa.types.is_null(values.type):
        return values.cast(pa.float64())
    if pa.types.is_integer(values.type) or pa.types.is_decimal(values.type):
        return values.cast(pa.float64(), safe=False)
    if pa.types.is_floating(values.type):
        numbers = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    texts = values.cast(pa.large_string())
    texts.validate(full=True)  # Parquet does not guarantee that strings are valid UTF-8
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
