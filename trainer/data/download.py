"""Download a model's data folder to local disk and parse its `dataset.json`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.records import DataObject, is_model_name
from registry.storage.filesystems import open_filesystem
from trainer.data.config import DatasetConfig, parse_dataset_config
from trainer.data.formats import is_data_file, open_part
from trainer.data.part import Part
from trainer.errors import DataError, EmptyPart, NoData
from trainer.wording import listed

BYTES_PER_BLOCK = 8 * 1024**2
MAX_CONFIG_BYTES = 1024**2
MAX_NAMED = 5


@dataclass(frozen=True)
class Dataset:
    """A model's data folder.

    Args:
        objects: all data files, including empty ones.
        notes: sentences about files that were skipped.
        warnings: sentences about files that are probably a mistake.
    """

    parts: list[Part]
    objects: list[DataObject]
    config: DatasetConfig
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Return the total size of the data files in bytes."""
        return sum(entry.size for entry in self.objects)


def fetch_dataset(url: str, model: str, *, into: Path, max_bytes: int) -> Dataset:
    """Copy every `*.csv` and `*.parquet` of the model's folder, and read `dataset.json`.

    Parts are sorted by name; other files are ignored.

    Args:
        url: fsspec URL of the data store.
        into: an existing local folder.
        max_bytes: larger data is refused before any of it is read.

    Raises:
        DataError: the folder does not exist, has no data file or too much data, or a data file is
            malformed.
        StoreError: fsspec does not support the URL.
    """
    if not is_model_name(model):
        raise DataError(f"{ascii(model)[:80]} is not a model name.")
    filesystem, root = open_filesystem(url)
    with _clear_errors(model):
        entries = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in filesystem.ls(f"{root}/{model}", detail=True)
            if entry["type"] == "file"
        }
        names = sorted(name for name in entries if is_data_file(name))
        if not names:
            raise NoData(f"The data folder of model {model!r} has no *.csv or *.parquet file.")
        size = sum(int(entries[name]["size"]) for name in names)
        if size > max_bytes:
            raise DataError(
                f"The data of model {model!r} is {size:,} bytes; TRAINER_MAX_DATA_BYTES allows "
                f"{max_bytes:,}."
            )
        config = _fetch_config(filesystem, entries.get("dataset.json"), into)
        paths = {name: into / f"{i}.part" for i, name in enumerate(names)}
        objects = [_fetch(filesystem, entries[name], path) for name, path in paths.items()]
    parts, empty = _open_parts(paths, config)
    notes = [f"Skipped empty files: {listed(empty, most=MAX_NAMED)}."] if empty else []
    if without_rows := [part.name for part in parts if not part.rows]:
        notes.append(f"Files without rows: {listed(without_rows, most=MAX_NAMED)}.")
    return Dataset(parts, objects, config, notes, _find_copies(objects))


def _open_parts(paths: dict[str, Path], config: DatasetConfig) -> tuple[list[Part], list[str]]:
    """Return the parts, and the names of empty files.

    Raises:
        EmptyPart: all files are empty.
    """
    parts: list[Part] = []
    empty: dict[str, EmptyPart] = {}
    for name, path in paths.items():
        try:
            parts.append(open_part(name, path, ignore=config.ignore, settings=config.csv))
        except EmptyPart as error:
            empty[name] = error
    if not parts:
        raise next(iter(empty.values()))
    return parts, list(empty)


def _find_copies(objects: list[DataObject]) -> list[str]:
    """Return a warning about files with identical content, if there are any."""
    first: dict[str, str] = {}
    copies = [
        f"{entry.name} (the same as {original})"
        for entry in objects
        if entry.size and (original := first.setdefault(entry.sha256, entry.name)) != entry.name
    ]
    if not copies:
        return []
    named = listed(copies, most=MAX_NAMED)
    return [f"Files with the same content, so their rows count twice: {named}."]


def _fetch_config(filesystem: Any, entry: dict[str, Any] | None, into: Path) -> DatasetConfig:
    if entry is None:
        return DatasetConfig()
    if entry["size"] > MAX_CONFIG_BYTES:
        raise DataError("dataset.json: must not be larger than 1 MiB.")
    _fetch(filesystem, entry, into / "dataset.json")
    return parse_dataset_config((into / "dataset.json").read_bytes())


def _fetch(filesystem: Any, entry: dict[str, Any], path: Path) -> DataObject:
    """Copy one file; fails if it is no longer the one that was listed."""
    name, size = entry["name"].rsplit("/", 1)[-1], int(entry["size"])
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BYTES_PER_BLOCK):
            end = min(start + BYTES_PER_BLOCK, size)
            content = bytes(filesystem.cat_file(entry["name"], start=start, end=end))
            digest.update(content)
            file.write(content)
    if _stamp(filesystem.info(entry["name"])) != _stamp(entry) or path.stat().st_size != size:
        raise DataError(f"{name}: the file changed while it was being read.")
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
    """Turn any error of a storage backend into a one-line `DataError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NoData(f"Model {model!r} has no data folder.") from error
    except DataError:
        raise
    except Exception as error:  # each backend has its own errors
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"Cannot read the data of model {model!r}: {' '.join(str(cause).split())}."
        ) from error
