"""Read the functions' records about a model's drops, and the newest data in its folder."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cli.pipeline_status import DropRecords
from services.common.filesystems import open_filesystem, translated_errors

KINDS = ("claims", "done", "dead")
DATA = (".csv", ".parquet")
BESIDE_DATA = ("_SUCCESS", "dataset.json")


def read_records(url: str, model: str) -> dict[str, DropRecords]:
    """Return the drops of a model by identity, from the functions' bucket.

    Malformed records and unknown fields are ignored.

    Raises:
        StoreError: the bucket cannot be read.
    """
    filesystem, root = open_filesystem(url, read_only=True)
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for record in _read_folder(filesystem, f"{root}/{kind}"):
            name = record.get("name")
            if record.get("model") != model or not _is_data(str(name)):
                continue
            identity = f"{record.get('bucket')}/{name}#{record.get('generation')}"
            found[kind][identity] = record
    drops = {identity for records in found.values() for identity in records}
    return {identity: _combine(identity, found) for identity in drops}


def find_newest_data(url: str, model: str) -> DropRecords | None:
    """Return a drop for the newest object in a model's data folder, without any event.

    Raises:
        StoreError: the data store cannot be read.
    """
    filesystem, root = open_filesystem(url, read_only=True)
    folder = f"{root}/{model}"
    with translated_errors(f"list the data of {model}"):
        try:
            entries = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return None
    objects = [
        (_written(entry), entry)
        for entry in entries
        if entry["type"] == "file" and _is_data(entry["name"])
        if entry.get("size") != 0 or entry["name"].endswith("/_SUCCESS")
    ]
    if not any(_is_part(entry["name"]) for _, entry in objects):
        return None
    written, newest = max(objects, key=lambda pair: (pair[0], pair[1]["name"]))
    generation = newest.get("generation") or f"{written.timestamp():.6f}"
    return DropRecords(f"{newest['name']}#{generation}", written)


def _read_folder(filesystem: Any, folder: str) -> Iterator[dict[str, Any]]:
    with translated_errors("read the records of the functions"):
        try:
            paths = [path for path in filesystem.ls(folder, detail=False) if path.endswith(".json")]
        except FileNotFoundError:
            return
        contents = filesystem.cat(paths, on_error="omit") if paths else {}
    for content in contents.values():
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _combine(identity: str, found: dict[str, dict[str, dict[str, Any]]]) -> DropRecords:
    claim, done, dead = (found[kind].get(identity) for kind in KINDS)
    times = [time for time in map(_time, (claim, done, dead)) if time is not None]
    return DropRecords(
        identity,
        seen=min(times, default=None),
        dispatched=_time(done),
        dead=str(dead.get("reason", "No reason was recorded.")) if dead else None,
    )


def _time(record: dict[str, Any] | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(str((record or {}).get("time")))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _written(entry: dict[str, Any]) -> datetime:
    """Return when an object was written, by its file system."""
    written = entry.get("timeCreated") or entry.get("created") or entry.get("mtime")
    if isinstance(written, datetime):
        return written if written.tzinfo else written.replace(tzinfo=UTC)
    if isinstance(written, str):
        return datetime.fromisoformat(written)
    return datetime.fromtimestamp(float(written or 0.0), UTC)


def _is_data(path: str) -> bool:
    return _is_part(path) or path.rpartition("/")[2] in BESIDE_DATA


def _is_part(path: str) -> bool:
    return path.lower().endswith(DATA)
