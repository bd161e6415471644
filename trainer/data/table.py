"""Read all parts into one compact, typed table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import pandas as pd
import pyarrow as pa

from registry.value_rules import ValueRules
from trainer.data.bad_cells import check_cells
from trainer.data.buffers import LARGEST, NumberBuffer, TextBuffer, round_up
from trainer.data.cells import find_cells
from trainer.data.config import DatasetConfig
from trainer.data.csv_part import SPARE, CsvPart
from trainer.data.guesses import Roles, guess_columns
from trainer.data.part import Part
from trainer.data.schema import ColumnSchema, infer_schema, read_floats
from trainer.errors import DataError
from trainer.types import Kind, Mask
from trainer.wording import counted

MAX_NAMED = 3


@dataclass(frozen=True)
class Table:
    """N rows of typed columns.

    Args:
        frame: numbers and booleans (1 and 0) as float32 (float64 if requested), and times as
            float64 seconds since 1970, with NaN for missing; text and sentences as categories.
        kinds: None for an empty column, which is a number in `frame`.
        parts: the source files, as long as they exist.
        ignored: columns that are not in `frame`, with the reasons.
        notes: sentences about how the data was read.
        warnings: sentences about columns that may have been misread.
    """

    frame: pd.DataFrame
    kinds: dict[str, Kind | None]
    parts: list[Part]
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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
    parts: list[Part],
    *,
    config: DatasetConfig,
    precise: Iterable[str],
    target: str | None = None,
    previous: Mapping[str, Kind] | None = None,
) -> Table:
    """Read the parts; text is read at least twice, to infer the schema and then for the values.

    Args:
        precise: columns to keep as float64.
        target: the column to predict, if known. Its labels are not trimmed, so that labels that
            differ only in white space can be refused rather than merged.
        previous: the kinds of the previous version's columns, if there is one.

    Raises:
        DataError: the parts have different columns; a column has mixed kinds or not the configured
            kind; a decimal sign is unclear; or a number does not fit 32 bits.
    """
    names = _check_names(parts, config)
    plain = [name for name in (target, config.group) if name is not None]
    schema = infer_schema(parts, names, config, known=previous, plain=plain)
    notes = check_cells(parts, schema, config, target=target)
    rules, rows, exact = config.value_rules, sum(part.rows for part in parts), set(precise)
    columns: dict[str, TextBuffer | NumberBuffer] = {
        name: TextBuffer(rules, keep_blanks=name == target)
        if column.kind in ("text", "sentence")
        else NumberBuffer(rows, column, rules, precise=name in exact or column.kind == "datetime")
        for name, column in schema.items()
    }
    for part in parts:
        read = 0
        for block in part.read(names):
            count = len(next(iter(block.values())))
            read += count
            if read <= part.rows:
                absent = pa.nulls(count, pa.large_string())
                for name, buffer in columns.items():
                    buffer.add(part, block.get(name, absent))
        if read != part.rows:
            raise DataError(
                f"{part.name}: found {part.rows:,} rows on the first pass and {read:,} on the "
                "second; are its line endings mixed?"
            )
    _check_size(parts, columns, schema, rules)
    notes = [*_describe_dialects(parts, schema), *notes]
    for name, buffer in columns.items():
        if isinstance(buffer, TextBuffer):
            notes += buffer.describe_missing(name)
    counting = {
        name for name, each in columns.items() if isinstance(each, NumberBuffer) and each.counts
    }
    values = {name: columns.pop(name).finish() for name in names}
    pa.default_memory_pool().release_unused()
    special = [name for name in (*plain, config.time) if name is not None]
    roles = Roles(stated=config.columns, previous=previous, special=special)
    guesses = guess_columns(schema, values, counting, roles)
    for name in guesses.ignored:
        del values[name]
    _check_feedback(parts, set(values))
    return Table(
        pd.DataFrame(values, index=pd.RangeIndex(rows), copy=False),
        {name: guesses.kinds[name] for name in values},
        parts,
        ignored=_list_ignored(parts, config) | guesses.ignored,
        notes=notes + guesses.notes,
        warnings=guesses.warnings,
    )


def _check_names(parts: list[Part], config: DatasetConfig) -> list[str]:
    """Return the columns to read, in the order of the first part that is no feedback."""
    first = _first_part(parts)
    for part in parts:
        if part.is_feedback:
            # It has the columns of a version's signature; `_check_feedback` checks for others.
            matches = set(part.columns) <= set(first.columns)
        elif part.kinds is None is first.kinds:
            matches = part.columns == first.columns
        else:
            matches = set(part.columns) == set(first.columns)
        if not matches:
            raise _header_error(part, first)
    for name in [*config.columns, *config.ignore]:
        if name not in first.columns and all(name != part.index for part in parts):
            raise DataError(f"dataset.json: column {name!r} does not exist.")
    names = [name for name in first.columns if name not in config.ignore]
    if not names:
        raise DataError("dataset.json: every column is ignored.")
    return names


def _check_feedback(parts: list[Part], used: set[str]) -> None:
    """Refuse exports of feedback that lack a column that is used.

    Which columns are identifiers, and therefore not used, is known only once they are read.
    """
    for part in parts:
        if part.is_feedback and not used <= set(part.columns):
            raise _header_error(part, _first_part(parts))


def _first_part(parts: list[Part]) -> Part:
    return next((part for part in parts if not part.is_feedback), parts[0])


def _header_error(part: Part, first: Part) -> DataError:
    return DataError(
        f"{part.name}: its header differs from that of {first.name}"
        f"{_describe_difference(part.columns, first.columns)}."
    )


def _describe_difference(ours: list[str], theirs: list[str]) -> str:
    more = [name for name in ours if name not in theirs]
    fewer = [name for name in theirs if name not in ours]
    if not more and not fewer:
        return ": the columns are in a different order"
    changes = [f"{name!r} is new" for name in more[:MAX_NAMED]]
    changes += [f"{name!r} is missing" for name in fewer[:MAX_NAMED]]
    return f": {', '.join(changes)}"


def _list_ignored(parts: list[Part], config: DatasetConfig) -> dict[str, str]:
    ignored = {part.index: "pandas' index" for part in parts if part.index is not None}
    return ignored | dict.fromkeys(config.ignore, "ignored in dataset.json")


def _describe_dialects(parts: list[Part], schema: dict[str, ColumnSchema]) -> list[str]:
    """Describe how the CSV parts are read, in one sentence per dialect."""
    written = [
        column for column in schema.values() if column.kind == "number" and column.is_written
    ]
    names: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        if isinstance(part, CsvPart):
            signs = {column.style_in(part).decimal for column in written}
            decimal = {",": ", decimal comma", ".": ", decimal point"}.get("".join(signs), "")
            spare = ", delimiters at line ends" if SPARE in part.header else ""
            names[f"{part.dialect.describe()}{decimal}{spare}"].append(part.name)
    blank = sum(part.blank_lines for part in parts if isinstance(part, CsvPart))
    notes = [f"Ignored {counted(blank, 'blank line')}."] if blank else []
    if len(names) == 1:
        return [f"Read as: {next(iter(names))}.", *notes]
    for dialect, (first, *others) in names.items():
        more = f" and {counted(len(others), 'other file')}" if others else ""
        notes.append(f"Read as {dialect}: {first}{more}.")
    return notes


def _check_size(
    parts: list[Part],
    columns: dict[str, TextBuffer | NumberBuffer],
    schema: dict[str, ColumnSchema],
    rules: ValueRules,
) -> None:
    """Refuse numbers beyond 32-bit floats, and the largest float, a usual mark for "no data"."""
    for name, buffer in columns.items():
        if isinstance(buffer, TextBuffer) or buffer.largest < LARGEST:  # no time is that large
            continue
        column, largest = schema[name], buffer.largest

        def is_largest(
            part: Part,
            values: pa.Array,
            column: ColumnSchema = column,
            least: float = min(largest, LARGEST),
        ) -> Mask:
            sizes = np.abs(read_floats(values, column, rules, part))
            return np.asarray(round_up(sizes) >= least)

        found = find_cells(parts, {name: is_largest})[name]
        if largest > LARGEST:
            raise DataError(f"Column {name!r} has numbers too large for 32-bit floats: {found}.")
        raise DataError(
            f"Column {name!r} has the largest 32-bit float in {counted(found.count, 'cell')}, "
            f"which looks like a mark for missing values: {found}. If it is, add it to "
            '"missing" in dataset.json.'
        )
