"""A playground's fields become a row, and errors find their way back."""

import ast
import json
import shlex

import pytest

from services.console.models.rows import example_fields, field_errors, field_name, read_row
from services.console.models.samples import code_samples

HOSTILE = 'it\'s "quoted" $HOME `id` \\ </code>\n'


def column(name: str, kind: str, example: object = None) -> dict[str, object]:
    return {"name": name, "kind": kind, "example": example}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("number", "13", 13),
        ("number", " -1.5e3 ", -1500.0),
        ("number", ".5", 0.5),
        ("number", "", None),
        ("number", "1,5", "1,5"),
        ("number", "nan", "nan"),
        ("number", "1_000", "1_000"),
        ("number", "٣", "٣"),
        ("boolean", "true", True),
        ("boolean", "FALSE", False),
        ("boolean", "maybe", "maybe"),
        ("text", "1", "1"),
        ("datetime", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
    ],
)
def test_a_field_becomes_a_value_of_its_columns_kind_or_stays_text(
    kind: str, text: str, value: object
) -> None:
    row = read_row([column("x", kind)], {"x": text})

    assert row == {"x": value}
    assert type(row["x"]) is type(value)


def test_a_field_that_was_not_sent_is_missing() -> None:
    assert read_row([column("x", "number")], {}) == {"x": None}


@pytest.mark.parametrize("name", ["csrf", "once", "action"])
def test_a_column_named_like_a_field_of_the_form_has_another_field(name: str) -> None:
    columns = [column(name, "text", "example")]

    assert field_name(name) == f"column.{name}"
    assert example_fields(columns) == {f"column.{name}": "example"}
    assert read_row(columns, {f"column.{name}": "x", name: "y"}) == {name: "x"}


def test_an_error_is_about_a_field_if_it_names_a_column() -> None:
    errors = {
        "instances.0.od280/od315.of": "Must be a number.",
        "instances.0.csrf": "Wrong.",
        "parameters.top": "Too many.",
    }

    by_field, others = field_errors(errors)

    assert by_field == {"od280/od315.of": "Must be a number.", "column.csrf": "Wrong."}
    assert others == ["Too many."]


def test_names_are_quoted_in_every_language() -> None:
    row = {HOSTILE: HOSTILE, "flag": True}

    samples = dict(code_samples(inference_url="http://x", model="a'b", row=row))

    curl = shlex.split(samples["curl"].replace("\\\n", ""))
    assert curl[1] == "http://x/v1/models/a%27b:predict"
    assert json.loads(curl[-1]) == {"instances": [row]}
    tree = ast.parse(samples["Python"])
    assigned = next(each for each in tree.body if isinstance(each, ast.Assign))
    assert ast.literal_eval(assigned.value) == row
    assert set(samples) == {"curl", "Python", "JavaScript", "R", "Excel", "Sheets"}
    body = samples["JavaScript"].partition("JSON.stringify(")[2].rpartition("),\n});")[0]
    assert json.loads(body) == {"instances": [row]}
