"""Fetching `<data store>/<model>/`: its parts onto local disk, and `dataset.json`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.common.filesystems import open_filesystem
from services.common.model_records import DataObject, is_model_name
from trainer.dataset_file import DatasetFile, parse_dataset_file
from trainer.errors import DataError, EmptyPart
from trainer.parts import Part, open_part

FORMATS = (".csv", ".parquet")
BYTES_AT_ONCE = 8 * 1024**2
MOST_STATED_BYTES = 1024**2
MOST_NAMED = 5


@dataclass(frozen=True)
class Dataset:
    """What is in a model's data folder.

    Args:
        objects: all files with data, those that are empty included.
        notes: about files that were skipped, in sentences.
        warnings: about files that are probably there by mistake, in sentences.
    """

    parts: list[Part]
    objects: list[DataObject]
    stated: DatasetFile
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(entry.size for entry in self.objects)


def fetch_dataset(url: str, model: str, *, into: Path, most_bytes: int) -> Dataset:
    """Copy every `*.csv` and `*.parquet` of the model's folder, and read `dataset.json`.

    The parts are in the order of their names; other files are ignored.

    Args:
        url: fsspec URL of the data store.
        into: a folder of the caller's, on local disk.
        most_bytes: larger data is refused before any of it is read.

    Raises:
        DataError: no such folder, no part, too much of it, or a part that is not sound.
        StoreError: the URL is not one that fsspec knows.
    """
    if not is_model_name(model):
        raise DataError(f"{ascii(model)[:80]} is not a model name.")
    filesystem, root = open_filesystem(url)
    with _clear_errors(model):
        listed = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in filesystem.ls(f"{root}/{model}", detail=True)
            if entry["type"] == "file"
        }
        names = sorted(name for name in listed if is_data_file(name))
        if not names:
            raise DataError(f"There is no *.csv or *.parquet file in the data folder of {model}.")
        size = sum(int(listed[name]["size"]) for name in names)
        if size > most_bytes:
            raise DataError(
                f"The data of {model} is {size:,} bytes; TRAINER_MAX_DATA_BYTES allows "
                f"{most_bytes:,}."
            )
        stated = _fetch_stated(filesystem, listed.get("dataset.json"), into)
        paths = {name: into / f"{i}.part" for i, name in enumerate(names)}
        objects = [_fetch(filesystem, listed[name], path) for name, path in paths.items()]
    parts, empty = _open_parts(paths, stated)
    notes = [f"Skipped empty files: {name_some(empty)}."] if empty else []
    if without_rows := [part.name for part in parts if not part.rows]:
        notes.append(f"Files without rows: {name_some(without_rows)}.")
    return Dataset(parts, objects, stated, notes, _find_copies(objects))


def is_data_file(name: str) -> bool:
    """Whether a file is a part of the data, by its name."""
    return name.lower().endswith(FORMATS) and name[0] not in "._"


def _open_parts(paths: dict[str, Path], stated: DatasetFile) -> tuple[list[Part], list[str]]:
    """The parts, and the names of empty files.

    Raises:
        EmptyPart: all are empty.
    """
    parts: list[Part] = []
    empty: dict[str, EmptyPart] = {}
    for name, path in paths.items():
        try:
            parts.append(open_part(name, path, ignore=stated.ignore, settings=stated.csv))
        except EmptyPart as error:
            empty[name] = error
    if not parts:
        raise next(iter(empty.values()))
    return parts, list(empty)


def _find_copies(objects: list[DataObject]) -> list[str]:
    """A sentence about files with the same content, if there are some."""
    first: dict[str, str] = {}
    copies = [
        f"{entry.name} ({original})"
        for entry in objects
        if entry.size and (original := first.setdefault(entry.sha256, entry.name)) != entry.name
    ]
    if not copies:
        return []
    return [f"Files with the content of another, so that rows count twice: {name_some(copies)}."]


def name_some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _fetch_stated(filesystem: Any, entry: dict[str, Any] | None, into: Path) -> DatasetFile:
    if entry is None:
        return DatasetFile()
    if entry["size"] > MOST_STATED_BYTES:
        raise DataError("dataset.json: larger than a MiB.")
    _fetch(filesystem, entry, into / "dataset.json")
    return parse_dataset_file((into / "dataset.json").read_bytes())


def _fetch(filesystem: Any, entry: dict[str, Any], path: Path) -> DataObject:
    """Copy one file, provided that it stays the one that was listed."""
    name, size = entry["name"].rsplit("/", 1)[-1], int(entry["size"])
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BYTES_AT_ONCE):
            end = min(start + BYTES_AT_ONCE, size)
            content = bytes(filesystem.cat_file(entry["name"], start=start, end=end))
            digest.update(content)
            file.write(content)
    if _stamp(filesystem.info(entry["name"])) != _stamp(entry) or path.stat().st_size != size:
        raise DataError(f"{name}: it changed while it was read.")
    generation = entry.get("generation")
    return DataObject(
        name=name,
        generation=None if generation is None else str(generation),
        size=size,
        sha256=digest.hexdigest(),
    )


def _stamp(entry: dict[str, Any]) -> Any:
    return entry.get("generation") or entry.get("mtime")


@contextmanager
def _clear_errors(model: str) -> Iterator[None]:
    """Turn whatever a backend raises into a DataError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"There is no data for the model {model}.") from error
    except DataError:
        raise
    except Exception as error:  # open-ended: each backend has errors of its own
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"Cannot read the data of {model}: {' '.join(str(told).split())}."
        ) from error
