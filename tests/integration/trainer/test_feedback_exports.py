"""Exports of feedback are read as Tollgate wrote them, however the other files are written."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from registry.datetimes import format_time
from registry.feedback import Feedback, FeedbackStore, is_feedback_export
from tests.integration.trainer import cases
from tests.integration.trainer.conftest import Workshop
from trainer.data.load import LoadedData, load_data
from trainer.errors import DataError

COLUMNS = ["price", "qty", "colour"]
ROWS: list[list[Any]] = [[1.234, 2, "red"], [45.25, None, "green"], [61.5, 12, "red"]]


def export(workshop: Workshop, rows: list[list[Any]], columns: list[str] = COLUMNS) -> None:
    """Writes labelled rows to the data store, as `tollgate models feedback` does."""
    store = FeedbackStore(workshop.settings.feedback_store_url)
    feedback = Feedback(
        usage_event="1",
        account="ada",
        model="m",
        version="20260102t030405z-0123abcd",
        labels=["yes"] * len(rows),
        predictions=None,
        rows=rows,
        columns=columns,
        target="bought",
        time=datetime.now(UTC),
    )
    store.add(feedback)
    [name] = store.export("m", workshop.settings.data_store_url)
    assert is_feedback_export(name)


def load(workshop: Workshop) -> LoadedData:
    return load_data(
        workshop.settings.data_store_url, "m", target="bought", before=None, max_bytes=10**9
    )


def german(cell: str) -> str:
    return cell.replace(".", ",") + " €"


def test_a_decimal_comma_and_a_unit_do_not_apply_to_them(workshop: Workshop) -> None:
    rows = cases.with_column(cases.sales(), 0, german)
    workshop.put("m", cases.write(rows, delimiter=";"))
    export(workshop, ROWS)

    problem = load(workshop).problem

    added = problem.table[:3]  # its name sorts first
    assert added["price"].tolist() == pytest.approx([1.234, 45.25, 61.5])
    assert added["qty"].tolist()[::2] == [2, 12]
    assert list(added["colour"]) == ["red", "green", "red"]
    assert problem.table["price"].max() < 71


def test_the_configured_dialect_does_not_apply_to_them(workshop: Workshop) -> None:
    rows = cases.with_column(cases.sales(), 0, lambda cell: cell.replace(".", ","))
    workshop.put("m", cases.write(rows, delimiter=";").encode("utf-16"))
    workshop.put(
        "m",
        json.dumps({"csv": {"delimiter": ";", "decimal": ",", "encoding": "utf-16"}}),
        name="dataset.json",
    )
    export(workshop, ROWS)

    assert load(workshop).problem.table["price"][0] == pytest.approx(1.234)


def test_many_do_not_change_how_the_other_files_are_read(workshop: Workshop) -> None:
    rows = cases.with_column(cases.sales(20), 0, german)
    workshop.put("m", cases.write(rows, delimiter=";"))
    export(workshop, ROWS * 100)

    table = load(workshop).problem.table

    assert table["price"][:300].max() == pytest.approx(61.5)
    assert 30 < table["price"][300:].min() < table["price"].max() < 71


def test_they_may_lack_ignored_columns_and_have_another_order(workshop: Workshop) -> None:
    header = ("bought", "id", *COLUMNS)
    rows = [[row[3], "7", *row[:3]] for row in cases.sales()]
    workshop.put("m", cases.write(rows, header))
    workshop.put("m", '{"ignore": ["id"]}', name="dataset.json")
    export(workshop, ROWS)

    loaded = load(workshop)

    assert [column.name for column in loaded.problem.signature.columns] == COLUMNS
    assert len(loaded.problem.table) == 83


def test_those_without_a_used_column_are_refused_by_name(workshop: Workshop) -> None:
    header = ("house", *COLUMNS, "bought")
    workshop.put("m", cases.write([["7", *row] for row in cases.sales()], header))
    workshop.put("m", '{"group": "house"}', name="dataset.json")
    export(workshop, ROWS)

    with pytest.raises(DataError, match=r"feedback-\w+\.csv: .* of part\.csv: 'house' is missing"):
        load(workshop)


def test_a_text_that_is_no_number_is_refused_with_the_place(workshop: Workshop) -> None:
    workshop.put("m", cases.write(cases.sales()))
    export(workshop, [["1,5", 2, "red"]])

    with pytest.raises(DataError, match=r"1 cell that is not a number: feedback-\w+\.csv line 2"):
        load(workshop)


def test_they_may_lack_identifiers_and_have_times_and_sentences(workshop: Workshop) -> None:
    texts = [f"the {row[2]} one for {row[0]} or {row[1]}" for row in cases.sales()]
    rows = [
        [f"id-{i}", row[0], f"{i % 28 + 1:02}.01.2026", text, row[3]]
        for i, (row, text) in enumerate(zip(cases.sales(), texts, strict=True))
    ]
    header = ("id", "price", "at", "review", "bought")
    workshop.put("m", cases.write(rows, header, delimiter=";"))
    given: list[list[Any]] = [
        [1.5, "2026-01-31T14:00:00Z", "a good one, or not"],
        [2.5, None, None],
    ]
    export(workshop, given, ["price", "at", "review"])

    problem = load(workshop).problem

    kinds = {column.name: column.kind for column in problem.signature.columns}
    assert kinds == {"price": "number", "at": "datetime", "review": "sentence"}
    assert format_time(problem.table["at"][0]) == "2026-01-31T14:00:00Z"
    assert problem.table.iloc[1].isna().tolist() == [False, True, True]


def test_without_a_column_that_is_used_they_are_refused(workshop: Workshop) -> None:
    workshop.put("m", cases.write(cases.sales()))
    export(workshop, [[1.5, "red"]], ["price", "colour"])

    with pytest.raises(DataError, match=r"its header differs .* 'qty' is missing"):
        load(workshop)
