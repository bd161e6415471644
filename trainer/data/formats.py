"""The file formats of parts."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from registry.feedback import is_feedback_export
from trainer.data.config import CsvSettings
from trainer.data.csv_part import open_csv
from trainer.data.dialect import find_dialect
from trainer.data.parquet_part import open_parquet
from trainer.data.part import Part
from trainer.errors import DataError, EmptyPart

SUFFIXES = (".csv", ".parquet")
FEEDBACK_EXPORT = CsvSettings(delimiter=",", decimal=".", thousands="", encoding="utf-8")


def is_data_file(name: str) -> bool:
    """Return whether a file name is that of a data file."""
    return name.lower().endswith(SUFFIXES) and name[0] not in "._"


def open_part(
    name: str,
    path: Path,
    *,
    ignore: Collection[str] = (),
    settings: CsvSettings | None = None,
) -> Part:
    """Check that a part is well-formed.

    Args:
        name: its name in messages; the suffix decides the format.
        ignore: columns that may have any type, because they are not read.
        settings: the configured CSV dialect; exports of feedback have their own.

    Raises:
        EmptyPart: the file is empty; there is not even a header.
        DataError: the file is damaged; a column has no name or a duplicate one; a CSV row has more
            or fewer cells than the header; or a Parquet file has no column or an unsupported type.
    """
    if path.stat().st_size == 0:
        raise EmptyPart(f"{name}: the file is empty.")
    part: Part
    if name.lower().endswith(".parquet"):
        part = open_parquet(name, path, ignore)
    else:
        is_feedback = is_feedback_export(name)
        written = FEEDBACK_EXPORT if is_feedback else settings or CsvSettings()
        dialect = find_dialect(name, path, written)
        part = open_csv(name, path, dialect, is_feedback=is_feedback)
    if "" in part.columns:
        raise DataError(f"{name}: column {part.columns.index('') + 1} has no name.")
    _check_names_differ(name, part.columns)
    return part


def _check_names_differ(name: str, columns: list[str]) -> None:
    """Refuse columns whose names are equal, except for white space at their ends."""
    counted = Counter(column.strip() for column in columns)
    doubled = [column for column in columns if counted[column.strip()] > 1]
    if len(set(doubled)) < len(doubled):
        raise DataError(f"{name}: duplicate column {min(doubled)!r}; rename one of them.")
    if doubled:
        raise DataError(
            f"{name}: columns {doubled[0]!r} and {doubled[1]!r} differ only in white space; rename "
            "one."
        )
