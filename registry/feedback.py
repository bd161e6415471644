"""True outcomes of predictions, `<store>/<model>/labels/<usage event>.json`, and their exports.

A label is written once, under the id of its prediction, so a repeat has no effect whichever
process receives it. One record defines an export and lists its labels, and the file in the data
store is derived from it. The next export therefore finishes an interrupted one, and no label is
exported twice.
"""

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator

from pydantic import AwareDatetime, ValidationError

from registry.records import (
    ModelName,
    Record,
    StoreError,
    Value,
    VersionName,
    is_model_name,
)
from registry.storage.filesystems import create_object, open_filesystem, translated_errors

_EXPORT_NAME = re.compile(r"feedback-[0-9a-f]{16}\.csv")


class Feedback(Record):
    """The true outcome of one prediction.

    Args:
        labels: one for each row of the request.
        predictions: the predictions returned, if the receiving process remembered them.
        rows: in signature order (null: missing), if they were kept.
    """

    usage_event: str
    account: str
    model: ModelName
    version: VersionName
    labels: list[Value]
    predictions: list[Value] | None
    rows: list[list[Value | None]] | None
    columns: list[str]
    target: str
    time: AwareDatetime


class Export(Record):
    """The usage events whose labels are in one file of the data store."""

    usage_events: list[str]


class FeedbackStore:
    """The store at an fsspec URL. Calls block.

    Every method raises StoreError if the store is unreachable.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = open_filesystem(url)

    def add(self, feedback: Feedback) -> Feedback:
        """Write a label and return the stored one, which an earlier call may have written."""
        path = self._path(feedback.model, feedback.usage_event)
        raw = feedback.model_dump_json().encode()
        with translated_errors("write a label"):
            if create_object(self._fs, path, raw):
                return feedback
        return self._read(path)

    def export(self, model: str, data_url: str) -> list[str]:
        """Write all labels with rows that are not exported yet to the data store, as CSV.

        Returns:
            Names of the files written now: one for each set of columns among the versions, plus
            those that an interrupted export left out.
        """
        if not is_model_name(model):
            raise StoreError(f"{ascii(model)[:80]} is not a valid model name.")
        exports = self._exports(model)
        exported = {event for export in exports.values() for event in export.usage_events}
        labels = {each.usage_event: each for each in self._labels(model)}
        new: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for event in sorted(labels.keys() - exported):
            if labels[event].rows is not None:
                new[(*labels[event].columns, labels[event].target)].append(event)
        for events in new.values():
            name = hashlib.sha256("\n".join(events).encode()).hexdigest()[:16]
            exports[name] = Export(usage_events=events)
            raw = exports[name].model_dump_json().encode()
            with translated_errors("write an export"):
                create_object(self._fs, f"{self._root}/{model}/exports/{name}.json", raw)
        data, root = open_filesystem(data_url)
        written = []
        for name, export in exports.items():
            content = _csv([labels[event] for event in export.usage_events])
            with translated_errors("write labelled rows"):
                path = f"{root}/{model}/feedback-{name}.csv"
                if not data.exists(path) and create_object(data, path, content):
                    written.append(path.rpartition("/")[2])
        return written

    def _labels(self, model: str) -> Iterator[Feedback]:
        for path in self._list(f"{self._root}/{model}/labels"):
            yield self._read(path)

    def _exports(self, model: str) -> dict[str, Export]:
        paths = self._list(f"{self._root}/{model}/exports")
        with translated_errors("read the exports"):
            return {
                path.rpartition("/")[2].removesuffix(".json"): Export.model_validate_json(
                    self._fs.cat_file(path)
                )
                for path in paths
            }

    def _list(self, folder: str) -> list[str]:
        with translated_errors("list the labels"):
            try:
                paths = self._fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(path for path in paths if path.endswith(".json"))

    def _read(self, path: str) -> Feedback:
        with translated_errors("read a label"):
            try:
                return Feedback.model_validate_json(self._fs.cat_file(path))
            except ValidationError as error:
                raise StoreError("A label in the feedback store is malformed.") from error

    def _path(self, model: str, usage_event: str) -> str:
        return f"{self._root}/{model}/labels/{usage_event}.json"


def is_feedback_export(name: str) -> bool:
    """Return whether a file name in the data store is that of an export.

    Numbers in an export have a decimal point, however other files of the model are written.
    """
    return _EXPORT_NAME.fullmatch(name) is not None


def _csv(labels: list[Feedback]) -> bytes:
    """Return a CSV file of features and target for the trainer, with lower-case booleans.

    Texts are written unchanged, even if a spreadsheet would run them as formulas: the trainer must
    see what callers sent.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*labels[0].columns, labels[0].target])
    for each in labels:
        for row, label in zip(each.rows or [], each.labels, strict=True):
            writer.writerow([_cell(value) for value in (*row, label)])
    return text.getvalue().encode()


def _cell(value: Value | None) -> Value | None:
    return str(value).lower() if isinstance(value, bool) else value
