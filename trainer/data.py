"""Reading `<data store>/<model>/`: the CSV parts as one table of text, and `dataset.json`."""

import csv
import hashlib
import io
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError

from services.common.model_records import DataObject, is_model_name
from services.common.model_store import open_filesystem
from trainer.errors import DataError
from trainer.kinds import Metric, Task

# Cells that say "missing", in a column of any kind. Not "None", which is a fine category.
MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


class DatasetFile(BaseModel):
    """`dataset.json`: what the data's owner says about it; fields we do not know are ignored."""

    target: str | None = None
    task: Task | None = None
    metric: Metric | None = None


@dataclass(frozen=True)
class Dataset:
    """What lay in a model's data folder.

    `table` holds text as it was written, NaN where a cell was missing: what a column means is
    decided once, over all parts.
    """

    table: pd.DataFrame
    objects: list[DataObject]
    stated: DatasetFile


def read_dataset(url: str, model: str) -> Dataset:
    """Read every `*.csv` in the model's folder, in the order of their names, and `dataset.json`.

    Args:
        url: fsspec URL of the data store.

    Raises:
        DataError: no such folder, no CSV part, no rows, or a part that is not sound CSV in UTF-8
            with the same header as the others.
        StoreError: the URL is not one that fsspec knows.
    """
    if not is_model_name(model):
        raise DataError(f"{ascii(model)[:80]} is not a model name.")
    filesystem, root = open_filesystem(url)
    try:
        listed = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in filesystem.ls(f"{root}/{model}", detail=True)
            if entry["type"] == "file"
        }
        parts = sorted(name for name in listed if name.endswith(".csv") and name[0] != ".")
        raw = {name: _read(filesystem, listed[name]) for name in parts}
        stated = b"{}"
        if "dataset.json" in listed:
            stated = _read(filesystem, listed["dataset.json"])
    except FileNotFoundError as error:
        raise DataError(f"There is no data for the model {model}.") from error
    except DataError:
        raise
    except Exception as error:  # open-ended: each backend has errors of its own
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"Cannot read the data of {model}: {' '.join(str(told).split())}."
        ) from error
    if not parts:
        raise DataError(f"There is no *.csv file in the data folder of {model}.")
    return Dataset(
        table=_join(raw),
        objects=[_object(name, raw[name], listed[name]) for name in parts],
        stated=_parse_dataset_file(stated),
    )


def parse_csv(name: str, raw: bytes) -> pd.DataFrame:
    """One part as a table of text.

    Raises:
        DataError: it is not UTF-8, is empty, has a doubtful header, or a row with more or fewer
            cells than the header.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}.") from error
    _check_shape(name, text)
    # pandas is quick, but pads short rows and renames doubled columns: that was ruled out above.
    return pd.read_csv(
        io.StringIO(text),
        dtype=str,
        keep_default_na=False,
        na_values=MISSING,
        skipinitialspace=True,
        index_col=False,
    )


def _check_shape(name: str, text: str) -> None:
    """Every row as long as the header, and the header's names usable."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            raise DataError(f"{name}: the file is empty.")
        if "" in header:
            raise DataError(f"{name}: column {header.index('') + 1} has no name.")
        doubled = {column for column in header if header.count(column) > 1}
        if doubled:
            raise DataError(f"{name}: the column {min(doubled)!r} is there more than once.")
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{name}: line {rows.line_num} has {len(row)} cells, "
                    f"the header has {len(header)}."
                )
    except csv.Error as error:
        raise DataError(f"{name}: line {rows.line_num}: {error}.") from error


def _join(raw: dict[str, bytes]) -> pd.DataFrame:
    tables = {name: parse_csv(name, content) for name, content in raw.items()}
    first, *others = tables
    for name in others:
        if list(tables[name].columns) != list(tables[first].columns):
            raise DataError(f"{name}: its header is not the one of {first}.")
    return pd.concat(tables.values(), ignore_index=True)


def _read(filesystem: Any, entry: dict[str, Any]) -> bytes:
    """The file's bytes, provided that it still is the file that was listed."""
    content = bytes(filesystem.cat_file(entry["name"]))
    if _stamp(filesystem.info(entry["name"])) != _stamp(entry) or len(content) != entry["size"]:
        raise DataError(f"{entry['name'].rsplit('/', 1)[-1]}: it changed while it was read.")
    return content


def _stamp(entry: dict[str, Any]) -> Any:
    return entry.get("generation") or entry.get("mtime")


def _object(name: str, content: bytes, entry: dict[str, Any]) -> DataObject:
    generation = entry.get("generation")
    return DataObject(
        name=name,
        generation=None if generation is None else str(generation),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _parse_dataset_file(raw: bytes) -> DatasetFile:
    try:
        return DatasetFile.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(f"dataset.json: {place}: {first['msg']}.") from error
