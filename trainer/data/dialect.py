"""The dialect of a CSV part: its encoding and delimiter, configured or detected."""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.config import CsvSettings
from trainer.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
BYTES_PER_BLOCK = 8 * 1024**2
SAMPLE_ROWS = 100
MIN_SHARE = 0.8  # of rows with as many cells as the header
SAMPLE_CHARACTERS = 256 * 1024
MAX_CELL_LENGTH = 1_000_000

# Bytes without a character in Windows-1252, and ÿ, which is very rare in real text.
_UNLIKELY_IN_CP1252 = re.compile(rb"[\x00\x81\x8d\x8f\x90\x9d\xff]")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV part is written.

    Args:
        skip: lines before the header: Excel's `sep=;`.
    """

    delimiter: str = ","
    encoding: str = "utf-8-sig"
    skip: int = 0

    def describe(self) -> str:
        """Return a readable name of the dialect."""
        name = DELIMITERS.get(self.delimiter, repr(self.delimiter))
        encoding = "UTF-8" if self.encoding in ("utf-8", "utf-8-sig") else self.encoding
        return f"{name}-separated, {encoding}"

    def rows(self, lines: Iterable[str], *, strict: bool = True) -> "Reader":
        """Return a reader of the rows of a file that was opened with `newline=""`."""
        csv.field_size_limit(MAX_CELL_LENGTH)
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.delimiter != " ", strict=strict
        )


def find_dialect(name: str, path: Path, settings: CsvSettings) -> Dialect:
    """Return a part's dialect: as configured, otherwise detected from its first rows.

    Raises:
        DataError: the text is not in the configured encoding; or none is configured and it is not
            UTF-8, UTF-16 with a byte-order mark, or plausible Windows-1252.
    """
    encoding = settings.encoding
    if encoding is None:
        encoding = _detect_encoding(name, path)
    else:
        encoding = "utf-8-sig" if encoding == "utf-8" else encoding
        _check_encoding(name, path, encoding)
    with path.open(encoding=encoding, newline="") as file:
        sample = file.read(SAMPLE_CHARACTERS)
    skip = 0
    delimiter = settings.delimiter
    if match := _SEPARATOR_LINE.match(sample):
        skip, sample = 1, sample[match.end() :]
        delimiter = delimiter or match[1]
    return Dialect(delimiter or _detect_delimiter(sample), encoding, skip)


def _detect_delimiter(sample: str) -> str:
    """Return the delimiter that gives most rows as many cells as the header; default comma."""
    lines = list(io.StringIO(sample, newline=""))
    if len(sample) == SAMPLE_CHARACTERS:
        del lines[-1:]  # may be incomplete
    widths = {delimiter: _measure_rows(lines, delimiter) for delimiter in DELIMITERS}
    fitting = [
        (share, cells, delimiter)
        for delimiter, (cells, share) in widths.items()
        if cells > 1 and share >= MIN_SHARE
    ]
    if fitting:
        # Prefer a comma: the other delimiters are more likely to be part of a cell.
        return max(fitting, key=lambda each: (each[0], each[2] == ",", each[1]))[2]
    if widths[","][0] > 1 or widths[","][1] == 1.0:
        return ","
    return max(DELIMITERS, key=lambda delimiter: widths[delimiter][0])


def _measure_rows(lines: list[str], delimiter: str) -> tuple[int, float]:
    """Return the header's number of cells, and the share of rows with as many."""
    reader = Dialect(delimiter).rows(lines, strict=False)
    rows = list(islice(filter(None, reader), SAMPLE_ROWS))
    if not rows:
        return 0, 0.0
    cells = count_named(rows[0])
    fitting = sum(
        len(row) == len(rows[0]) or are_empty(row) or (len(row) >= cells and are_empty(row[cells:]))
        for row in rows[1:]
    )
    return cells, fitting / max(len(rows) - 1, 1)


def count_named(header: list[str]) -> int:
    """Return the number of columns, without those that only delimiters at the line's end make."""
    count = len(header)
    while count > 1 and not header[count - 1]:
        count -= 1
    return count


def are_empty(cells: list[str]) -> bool:
    """Return whether all cells are empty or blank."""
    return not any(cell.strip() for cell in cells)


def _detect_encoding(name: str, path: Path) -> str:
    with path.open("rb") as file:
        if encoding := _BYTE_ORDER_MARKS.get(file.read(2)):
            _check_encoding(name, path, encoding)
            return encoding
        start = file.read(SAMPLE_CHARACTERS)
    if start.count(0) * 4 > len(start):
        raise DataError(
            f"{name}: looks like UTF-16 without a byte-order mark. If it is, set "
            '"csv": {"encoding": "utf-16-le"} in dataset.json.'
        )
    error = _find_error(path, "utf-8")
    if error is None:
        return "utf-8-sig"
    if _is_plausible_cp1252(path):
        return "cp1252"
    raise _bad_encoding(name, "UTF-8", error)


def _check_encoding(name: str, path: Path, encoding: str) -> None:
    if error := _find_error(path, encoding):
        raise _bad_encoding(name, encoding, error)


def _bad_encoding(name: str, encoding: str, error: "_EncodingError") -> DataError:
    return DataError(
        f"{name}: not {encoding} at byte {error.byte}, line {error.line}. If it is in another "
        'encoding, set "csv": {"encoding": …} in dataset.json.'
    )


@dataclass(frozen=True)
class _EncodingError:
    byte: int
    line: int


def _find_error(path: Path, encoding: str) -> _EncodingError | None:
    """Return the place of the first byte that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    start, line = 0, 1
    with path.open("rb") as file:
        while True:
            content = file.read(BYTES_PER_BLOCK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(content, final=not content)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):  # a missing byte-order mark
                    return _EncodingError(0, 1)
                line += content.count(b"\n", 0, max(error.start - pending, 0))
                return _EncodingError(start - pending + error.start, line)
            if not content:
                return None
            start += len(content)
            line += content.count(b"\n")


def _is_plausible_cp1252(path: Path) -> bool:
    """Return whether all bytes are likely in Windows-1252 and none form a UTF-8 character."""
    with path.open("rb") as file:
        while content := file.read(BYTES_PER_BLOCK):
            if _UNLIKELY_IN_CP1252.search(content):
                return False
            if not content.decode("utf-8", "ignore").isascii():
                return False  # damaged UTF-8
    return True
