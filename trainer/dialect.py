"""The dialect of a CSV part: its encoding and what parts its cells, stated or detected."""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.dataset_file import CsvSettings
from trainer.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
BYTES_AT_ONCE = 8 * 1024**2
SAMPLE_ROWS = 100
LEAST_SHARE = 0.8  # of the rows that are as long as the header
SAMPLE_CHARACTERS = 256 * 1024
LONGEST_CELL = 1_000_000

# Bytes that Windows-1252 has no character for; and ÿ, which is hardly ever one.
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
        """Return the dialect as people read it."""
        name = DELIMITERS.get(self.delimiter, repr(self.delimiter))
        encoding = "UTF-8" if self.encoding in ("utf-8", "utf-8-sig") else self.encoding
        return f"{name}-separated, {encoding}"

    def rows(self, lines: Iterable[str], *, strict: bool = True) -> "Reader":
        """Return a reader of the rows of a file opened with `newline=""`, after `skip` lines."""
        csv.field_size_limit(LONGEST_CELL)
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.delimiter != " ", strict=strict
        )


def find_dialect(name: str, path: Path, settings: CsvSettings) -> Dialect:
    """Return a part's dialect: what is stated, and otherwise what its first rows show.

    Raises:
        DataError: the text is neither UTF-8, UTF-16 with its mark, nor plausible Windows-1252, or
            is not in the encoding that is stated.
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
    """Return the delimiter by which most rows are as long as the header; a comma if in doubt."""
    lines = list(io.StringIO(sample, newline=""))
    if len(sample) == SAMPLE_CHARACTERS:
        del lines[-1:]  # it may be cut
    widths = {delimiter: _measure_rows(lines, delimiter) for delimiter in DELIMITERS}
    fitting = [
        (share, cells, delimiter)
        for delimiter, (cells, share) in widths.items()
        if cells > 1 and share >= LEAST_SHARE
    ]
    if fitting:
        # A comma comes first: what others part may well be within its cells.
        return max(fitting, key=lambda each: (each[0], each[2] == ",", each[1]))[2]
    if widths[","][0] > 1 or widths[","][1] == 1.0:
        return ","
    return max(DELIMITERS, key=lambda delimiter: widths[delimiter][0])


def _measure_rows(lines: list[str], delimiter: str) -> tuple[int, float]:
    """Return how many cells the header has, and the share of the rows that have as many."""
    reader = Dialect(delimiter).rows(lines, strict=False)
    rows = list(islice(filter(None, reader), SAMPLE_ROWS))
    if not rows:
        return 0, 0.0
    cells = len(rows[0])
    return cells, sum(len(row) == cells for row in rows[1:]) / max(len(rows) - 1, 1)


def _detect_encoding(name: str, path: Path) -> str:
    with path.open("rb") as file:
        if encoding := _BYTE_ORDER_MARKS.get(file.read(2)):
            _check_encoding(name, path, encoding)
            return encoding
        start = file.read(SAMPLE_CHARACTERS)
    if start.count(0) * 4 > len(start):
        raise DataError(
            f"{name}: it looks like UTF-16 without a byte-order mark. If it is, state it in "
            'dataset.json: "csv": {"encoding": "utf-16-le"}.'
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
        'encoding, state it in dataset.json: "csv": {"encoding": …}.'
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
            content = file.read(BYTES_AT_ONCE)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(content, final=not content)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):  # no byte-order mark
                    return _EncodingError(0, 1)
                line += content.count(b"\n", 0, max(error.start - pending, 0))
                return _EncodingError(start - pending + error.start, line)
            if not content:
                return None
            start += len(content)
            line += content.count(b"\n")


def _is_plausible_cp1252(path: Path) -> bool:
    """Whether all bytes are likely in Windows-1252, and none together are a UTF-8 character."""
    with path.open("rb") as file:
        while content := file.read(BYTES_AT_ONCE):
            if _UNLIKELY_IN_CP1252.search(content):
                return False
            if not content.decode("utf-8", "ignore").isascii():
                return False  # damaged UTF-8
    return True
