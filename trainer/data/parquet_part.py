"""Parquet parts: their types decide the kinds of the columns."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.data.part import Block, Part
from trainer.errors import DataError, EmptyPart
from trainer.types import Kind

# The columns in which pandas writes a table's index by default.
INDEX_NAMES = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True, kw_only=True)
class ParquetPart(Part):
    """A Parquet file."""

    def places(self, column: str, rows: list[int]) -> list[str]:
        """Return the rows, counted from 1: `row 5`."""
        return [f"row {row + 1}" for row in rows]

    def _read_blocks(self, columns: list[str], rows: int) -> Iterator[Block]:
        with pq.ParquetFile(self.path) as file:
            try:
                for batch in file.iter_batches(batch_size=rows, columns=columns):
                    yield {column: _plain(batch.column(column)) for column in columns}
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.name}: the file is damaged.") from error


def open_parquet(name: str, path: Path, ignore: Collection[str]) -> ParquetPart:
    """Check a file's schema.

    Args:
        ignore: columns that may have any type, because they are not read.

    Raises:
        EmptyPart: there are neither columns nor rows.
        DataError: the file cannot be read, has no columns, or a column has an unsupported type.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a readable Parquet file.") from error
    with file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    index = [column for column in schema.names if INDEX_NAMES.fullmatch(column)]
    names = [column for column in schema.names if column not in index]
    if not names:
        only = f", only pandas' index {', '.join(index)}" if index else ""
        raise (DataError if rows else EmptyPart)(f"{name}: the file has no columns{only}.")
    return ParquetPart(
        name=name,
        path=path,
        columns=names,
        rows=rows,
        kinds={
            column: None if column in ignore else _kind_of(name, schema.field(column))
            for column in names
            if schema.names.count(column) == 1
        },
        ignore=ignore,
        index=", ".join(index) or None,
    )


def _kind_of(name: str, field: pa.Field) -> Kind | None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "datetime"
    if _is_text(kind):
        return "text"
    raise DataError(f"{name}: column {field.name!r} has the unsupported type {kind}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _plain(values: pa.Array) -> pa.Array:
    """Convert a column to float64, booleans or strings; dates become ISO 8601."""
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
