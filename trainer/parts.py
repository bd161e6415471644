"""The parts of a data set, CSV or Parquet, as files on local disk: read a block at a time.

A block is one Arrow array per column: of strings from CSV, whose cells mean what all parts together
say; of numbers (float64), booleans or strings from Parquet, which has types of its own.
"""

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.errors import DataError
from trainer.kinds import Kind

# Cells that say "missing", in a column of any kind. Not "None", which is a fine category.
MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
CELLS_AT_ONCE = 200_000
LONGEST_CELL = 1_000_000

Block = dict[str, pa.Array]


@dataclass(frozen=True)
class Part:
    """A part whose form has been checked.

    Args:
        kinds: by column, what Parquet's types make of it (None: nothing in it); None for CSV.
        ignore: columns that blocks of Parquet are without.
    """

    name: str
    path: Path
    columns: list[str]
    rows: int
    kinds: dict[str, Kind | None] | None = None
    ignore: Collection[str] = ()

    def read(self) -> Iterator[Block]:
        """The blocks, in order; what is missing is null, empty text likewise."""
        at_once = max(100, CELLS_AT_ONCE // len(self.columns))
        return _read_csv(self, at_once) if self.kinds is None else _read_parquet(self, at_once)


def open_part(name: str, path: Path, *, ignore: Collection[str] = ()) -> Part:
    """Check a part's form; `name` is what it is called in messages, and ends in its format.

    Args:
        ignore: columns that may be of any type, as nobody will read them.

    Raises:
        DataError: it is empty, torn, or has a doubtful header; a CSV row has more or fewer cells
            than the header; a Parquet column is of a type that cannot be learnt from.
    """
    is_parquet = name.endswith(".parquet")
    part = _open_parquet(name, path, ignore) if is_parquet else _open_csv(name, path)
    if "" in part.columns:
        raise DataError(f"{name}: column {part.columns.index('') + 1} has no name.")
    doubled = {column for column in part.columns if part.columns.count(column) > 1}
    if doubled:
        raise DataError(f"{name}: the column {min(doubled)!r} is there more than once.")
    return part


def _open_csv(name: str, path: Path) -> Part:
    """Every row must be as long as the header: pandas, which is quicker, would pad short ones."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            header = next((row for row in rows if row), None)
            if header is None:
                raise DataError(f"{name}: the file is empty.")
            count = 0
            for row in rows:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{name}: line {rows.line_num} has {len(row)} cells, "
                        f"the header has {len(header)}."
                    )
                count += bool(row)
        except csv.Error as error:
            raise DataError(f"{name}: line {rows.line_num}: {error}.") from error
    return Part(name, path, header, count)


def _read_csv(part: Part, at_once: int) -> Iterator[Block]:
    with pd.read_csv(
        part.path,
        dtype=str,
        keep_default_na=False,
        na_values=MISSING,
        skipinitialspace=True,
        index_col=False,
        encoding="utf-8-sig",
        chunksize=at_once,
    ) as tables:
        for table in tables:
            yield {
                column: pa.array(table[column], pa.large_string(), from_pandas=True)
                for column in part.columns
            }


def _open_parquet(name: str, path: Path, ignore: Collection[str]) -> Part:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a Parquet file that can be read.") from error
    with file:
        schema = file.schema_arrow
        kinds = {
            field.name: None if field.name in ignore else _kind_of(name, field) for field in schema
        }
        return Part(name, path, list(schema.names), file.metadata.num_rows, kinds, ignore)


def _read_parquet(part: Part, at_once: int) -> Iterator[Block]:
    with pq.ParquetFile(part.path) as file:
        try:
            for batch in file.iter_batches(batch_size=at_once):
                yield {
                    column: _plain(batch.column(i))
                    for i, column in enumerate(part.columns)
                    if column not in part.ignore
                }
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{part.name}: torn or damaged.") from error


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
    raise DataError(f"{name}: the column {field.name!r} is of type {kind}, which has no use here.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _plain(values: pa.Array) -> pa.Array:
    """Values of a Parquet column as float64, booleans or strings; dates in ISO 8601."""
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
    texts.validate(full=True)  # a file may claim that any bytes are UTF-8
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
