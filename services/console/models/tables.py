"""A CSV that someone sends to a playground: what is wrong with it, and its predictions."""

import base64
import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

MAX_BYTES = 250_000
MAX_ROWS = 2_000
_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How the files of spreadsheets begin."""
_MAX_NAMED = 12
_MAX_SENTENCES = 5
_PLACE = re.compile(r"instances\.(\d+)(?:\.(.+))?", re.DOTALL)
_HEADER = "header."
_PLURALS = {"Missing column": "Missing columns", "Unknown column": "Unknown columns"}


class UnusableTable(Exception):
    """A CSV cannot be sent to a model; the message is for the person who chose it."""


def read_table(content: bytes, *, columns: Collection[str]) -> bytes:
    """Return a CSV in UTF-8 without a byte-order mark.

    Only what is cheap to see is checked; the API reports the rest in its own words.

    Args:
        columns: the names of the model's columns.

    Raises:
        UnusableTable: it is too large, another kind of file, not UTF-8, has too many rows, or
            separates its cells with something else than commas.
    """
    if len(content) > MAX_BYTES:
        raise too_large()
    if content.startswith(_ARCHIVES):
        raise UnusableTable("This is a spreadsheet or an archive. Save the sheet as CSV first.")
    content = content.removeprefix(_BOM)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UnusableTable(
            "This is not text in UTF-8. In a spreadsheet, save it as “CSV UTF-8”."
        ) from error
    if "\0" in text:
        raise UnusableTable("This is not a CSV file.")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise UnusableTable("This is not valid CSV.") from error
    if not rows:
        raise UnusableTable("This is empty. The first row must name the columns.")
    if len(rows) - 1 > MAX_ROWS:
        raise UnusableTable(
            f"This has more than {MAX_ROWS:,} rows. Send more with the API, or in parts."
        )
    [header, *_] = rows
    if len(header) == 1 and header[0] not in columns and re.search(r"[;\t]", header[0]):
        raise UnusableTable("Separate the cells with commas, not with semicolons or tabs.")
    return content


def too_large() -> UnusableTable:
    """Return the error for a file that is too large."""
    return UnusableTable(
        f"This is larger than {MAX_BYTES // 1000} KB. Send more with the API, or in parts."
    )


def describe_errors(errors: Mapping[str, str]) -> str:
    """Return what an API found wrong with a CSV, in a few sentences.

    Args:
        errors: by place, such as `header.alcohol` or `instances.4.alcohol`.
    """
    columns: dict[str, list[str]] = {}
    sentences = list[str]()
    for place, text in errors.items():
        found = _PLACE.fullmatch(place)
        if place.startswith(_HEADER):
            columns.setdefault(text.removesuffix("."), []).append(place.removeprefix(_HEADER))
        elif found:
            row = f"Row {int(found[1]) + 1}"
            sentences.append(f"{row}, {found[2]}: {text}" if found[2] else f"{row}: {text}")
        else:
            sentences.append(text)
    about_columns = [
        f"{_PLURALS.get(text, text) if len(names) > 1 else text}: {_list(names)}."
        for text, names in columns.items()
    ]
    more = len(sentences) - _MAX_SENTENCES
    shown = about_columns + sentences[:_MAX_SENTENCES]
    return " ".join(shown + ([f"And {more} more."] if more > 0 else []))


def download_address(target: str, predictions: Sequence[Any]) -> str:
    """Return a `data:` address of a CSV with the number and the prediction of each row.

    The console stores nothing, so the page itself must contain what can be downloaded.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["row", target])
    writer.writerows(enumerate(predictions, start=1))
    encoded = base64.b64encode(file.getvalue().encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{encoded}"


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
