"""Labels are written once and exported once, on a folder and on a bucket."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from harness.stores import FIRST
from registry.feedback import Feedback, FeedbackStore
from registry.records import StoreError
from registry.storage.filesystems import open_filesystem


def feedback(number: int, **changes: Any) -> Feedback:
    fields: dict[str, Any] = {
        "usage_event": str(UUID(int=number)),
        "account": "account",
        "model": "wine",
        "version": FIRST,
        "labels": [number],
        "predictions": [1],
        "rows": [[0.5, None, True, "red, or not"]],
        "columns": ["alcohol", "ash", "sold", "colour"],
        "target": "class",
        "time": datetime(2026, 11, 22, tzinfo=UTC),
    }
    return Feedback.model_validate(fields | changes)


@pytest.fixture
def data_url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/data"


def test_the_first_of_two_outcomes_is_kept(store_url: str) -> None:
    store = FeedbackStore(store_url)
    first = feedback(1)

    assert store.add(first) is first
    assert store.add(first) == first
    assert store.add(feedback(1, labels=[0])).labels == [1]


def test_each_label_with_rows_is_exported_once(
    store_url: str, data_url: str, tmp_path: Path
) -> None:
    store = FeedbackStore(store_url)
    for each in (feedback(2), feedback(1), feedback(3, rows=None)):
        store.add(each)

    [name] = store.export("wine", data_url)

    assert (tmp_path / "data/wine" / name).read_text().splitlines() == [
        "alcohol,ash,sold,colour,class",
        '0.5,,true,"red, or not",1',
        '0.5,,true,"red, or not",2',
    ]
    assert store.export("wine", data_url) == []
    store.add(feedback(4))
    assert len(store.export("wine", data_url)) == 1


def test_labels_of_versions_with_different_columns_go_into_separate_files(
    store_url: str, data_url: str
) -> None:
    store = FeedbackStore(store_url)
    store.add(feedback(1))
    store.add(feedback(2, columns=["alcohol"], rows=[[0.5]]))

    assert len(store.export("wine", data_url)) == 2
    assert store.export("wine", data_url) == []


def test_a_malformed_label_is_reported_in_one_sentence(store_url: str, data_url: str) -> None:
    store = FeedbackStore(store_url)
    store.add(feedback(1))
    filesystem, root = open_filesystem(store_url)
    filesystem.pipe_file(f"{root}/wine/labels/{UUID(int=2)}.json", b"{")

    with pytest.raises(StoreError, match="malformed"):
        store.export("wine", data_url)
    with pytest.raises(StoreError, match="not a valid model name"):
        store.export("../wine", data_url)
