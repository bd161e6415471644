"""A CSV for a playground: what is refused at once, errors in words, and predictions as a file."""

import base64
import csv
import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.models.tables import (
    MAX_BYTES,
    MAX_ROWS,
    UnusableTable,
    describe_errors,
    download_address,
    read_table,
)

COLUMNS = {"a", "b;c"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n\r\n", "empty"),
        (b"a\n" + b"1\n" * (MAX_ROWS + 1), "more than 2,000 rows"),
        (b"a" * (MAX_BYTES + 1), "larger than 250 KB"),
        (b"PK\x03\x04rest", "spreadsheet"),
        ("a\n1\n".encode("utf-16"), "UTF-8"),
        ("a\nä\n".encode("latin-1"), "UTF-8"),
        (b"a\n1\x00\n", "not a CSV"),
        (b"a;b\n1;2\n", "commas"),
        (b"a\tb\n1\t2\n", "commas"),
    ],
)
def test_what_is_no_usable_table_is_refused_in_words(content: bytes, why: str) -> None:
    with pytest.raises(UnusableTable, match=why):
        read_table(content, columns=COLUMNS)


def test_a_table_that_cannot_be_parsed_is_refused_in_words() -> None:
    limit = csv.field_size_limit(10)  # of the whole process
    try:
        with pytest.raises(UnusableTable, match="not valid CSV"):
            read_table(b"a\n" + b"x" * 11, columns=COLUMNS)
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (b"\xef\xbb\xbfa\n1\n", b"a\n1\n"),
        (b"b;c\n1\n", b"b;c\n1\n"),
        (b"a\n" + b"1\n" * MAX_ROWS, b"a\n" + b"1\n" * MAX_ROWS),
        (b'a\n"x\ny"\n', b'a\n"x\ny"\n'),
    ],
)
def test_a_table_stays_as_it_is_without_its_byte_order_mark(content: bytes, read: bytes) -> None:
    assert read_table(content, columns=COLUMNS) == read


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    with suppress(UnusableTable):
        assert content.endswith(read_table(content, columns=COLUMNS))


def test_errors_name_columns_together_and_rows_as_the_table_counts_them() -> None:
    errors = {
        "header.a": "Missing column.",
        "header.b": "Missing column.",
        "header.x.y": "Unknown column.",
        "instances.4.a": "Must be a number.",
        "instances.5": "Too few cells.",
        "instances": "Too many rows.",
    }

    text = describe_errors(errors)

    assert text == (
        "Missing columns: a, b. Unknown column: x.y. "
        "Row 5, a: Must be a number. Row 6: Too few cells. Too many rows."
    )


def test_many_errors_are_counted_instead_of_listed() -> None:
    columns = {f"header.c{number}": "Missing column." for number in range(20)}
    rows = {f"instances.{number}.a": "Must be a number." for number in range(8)}

    text = describe_errors(columns | rows)

    assert "c11 and 8 more." in text
    assert text.endswith("And 3 more.")


@given(st.lists(st.text() | st.integers() | st.floats(allow_nan=False), max_size=20), st.text())
def test_the_download_has_every_prediction(predictions: list[object], target: str) -> None:
    address = download_address(target, predictions)

    media_type, _, encoded = address.partition(",")
    rows = list(csv.reader(io.StringIO(base64.b64decode(encoded).decode(), newline="")))
    assert media_type == "data:text/csv;charset=utf-8;base64"
    assert rows[0] == ["row", target]
    assert rows[1:] == [[str(n), str(each)] for n, each in enumerate(predictions, start=1)]
