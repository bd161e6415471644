"""Read the functions' records about a model's drops, and the newest data in its folder."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from cli.pipelines.progress import DropRecords
from registry.data_names import Kind, kind_of
from registry.records import Manifest
from registry.storage.filesystems import open_filesystem, translated_errors

KINDS = ("claims", "done", "dead")
DROP = ("success", "settings", "data")
EARLIEST = datetime.min.replace(tzinfo=UTC)


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
            if record.get("model") != model or _kind_of(str(name)) not in DROP:
                continue
            identity = f"{record.get('bucket')}/{name}#{record.get('generation')}"
            found[kind][identity] = record
    drops = {identity for records in found.values() for identity in records}
    return {identity: _combine(identity, found) for identity in drops}


def find_newest_data(url: str, model: str) -> list[DropRecords]:
    """Return a drop for the newest object in a model's data folder, without any event.

    The newest data with an unsupported name is returned too, if it is newer.

    Raises:
        StoreError: the data store cannot be read.
    """
    filesystem, root = open_filesystem(url, read_only=True)
    folder = f"{root}/{model}"
    with translated_errors(f"list the data of {model}"):
        try:
            entries = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return []
    kinds = [(_kind_of(entry["name"]), entry) for entry in entries if entry["type"] == "file"]
    filled = [(kind, entry) for kind, entry in kinds if kind == "success" or entry.get("size") != 0]
    found = []
    if any(kind == "data" for kind, _ in filled):
        drop = [entry for kind, entry in filled if kind in DROP]
        found.append(_describe(max(drop, key=_order)))
    if misnamed := [entry for kind, entry in filled if kind == "unsupported"]:
        newest = _describe(max(misnamed, key=_order), is_misnamed=True)
        if all((newest.seen or EARLIEST) > (each.seen or EARLIEST) for each in found):
            found.append(newest)
    return found


def is_trained_on(newest: DropRecords, versions: Iterable[Manifest]) -> bool:
    """Whether one of some versions was trained on the newest data of its folder."""
    path, _, generation = newest.drop.rpartition("#")
    name = path.rpartition("/")[2]
    for manifest in versions:
        read = {each.name.rpartition("/")[2]: each.generation for each in manifest.data}
        if read.get(name) is not None:
            if read[name] == generation:
                return True
        elif newest.seen is not None and manifest.created_at >= newest.seen:
            return True  # files have no generations, and neither is `dataset.json` listed
    return False


def _describe(entry: dict[str, Any], *, is_misnamed: bool = False) -> DropRecords:
    written = _written(entry)
    generation = entry.get("generation") or f"{written.timestamp():.6f}"
    return DropRecords(f"{entry['name']}#{generation}", written, is_misnamed=is_misnamed)


def _order(entry: dict[str, Any]) -> tuple[datetime, str]:
    return _written(entry), str(entry["name"])


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
        time.astimezone(UTC)
    except (ValueError, OverflowError):
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


def _kind_of(path: str) -> Kind:
    return kind_of(path.rpartition("/")[2])
