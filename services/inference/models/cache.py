"""What was fetched from the model store, kept on local disk: a restart may find the store away.

    <folder>/files/<sha256>                       a version's files, named by what is in them
    <folder>/records/<model>/versions/<version>/  manifest.json and manifest.sig
    <folder>/records/<model>/releases/            the release last seen live

`records` is laid out as the store is, so that it is read, and verified, by the same code. Nothing
here is trusted for having been kept: signatures and digests are checked again at every reading,
and what does not hold is thrown away and fetched again.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from services.common.model_store import (
    Manifest,
    ModelStore,
    Release,
    StoreError,
    TrustedKeys,
    VersionRefused,
    Withdrawal,
)

log = structlog.get_logger()


class ModelCache:
    """Reads versions from the disk where it can, else from the store. Calls block.

    Safe to call from several threads, and beside other processes on the same folder. A disk that
    is full or broken costs fetches, never an answer.

    Args:
        folder: made when something is kept.
        max_bytes: beyond them what was used least recently goes, but nothing of a live version.
    """

    def __init__(
        self, store: ModelStore, trusted: TrustedKeys, *, folder: Path, max_bytes: int
    ) -> None:
        self._store = store
        self._trusted = trusted
        self._files = folder / "files"
        self._records = folder / "records"
        self._kept = ModelStore(f"file://{self._records.absolute()}")
        self._max_bytes = max_bytes
        self._clearing = threading.Lock()

    def open_release(self, model: str, release: Release) -> Manifest:
        """The manifest that `release` puts live; raises what `ModelStore.open_release` does."""
        return self._open(
            model, release.version, lambda s: s.open_release(model, release, self._trusted)
        )

    def open_version(self, model: str, version: str) -> Manifest:
        """A version's manifest; raises what `ModelStore.open_version` does."""
        return self._open(model, version, lambda s: s.open_version(model, version, self._trusted))

    def list_versions(self, model: str) -> list[str]:
        """The store's versions; while it is away, those kept here."""
        try:
            return self._store.list_versions(model)
        except StoreError:
            if kept := self._kept.list_versions(model):
                return kept
            raise

    def read_served(self, manifest: Manifest) -> bytes:
        """The file of a version that answers, its size and digest checked.

        A version new to this disk is read from the store, even if another had the same file: what
        lies there is what was released, and it has to hold.

        Raises:
            VersionRefused: it is missing, is not in the manifest, or is not the one signed.
            StoreError: it is not kept here, and the store cannot be read.
        """
        name = served_file(manifest)
        entry = manifest.files.get(name)
        if entry is None:
            what = f"{name} of {manifest.model} {manifest.version}"
            raise VersionRefused(f"The manifest does not list {what}.", reason="name")
        path = self._files / entry.sha256
        folder = self._version_folder(manifest.model, manifest.version)
        if (folder / "manifest.sig").exists() and path.exists():
            content = _read_sized(path, entry.size)
            if content is not None and hashlib.sha256(content).hexdigest() == entry.sha256:
                _mark_used(path)
                return content
            log.warning("model_cache_damaged", model=manifest.model, version=manifest.version)
        content = self._store.read_file(manifest, name)
        raw, signature = self._store.read_manifest(manifest.model, manifest.version)
        self._keep(path, content)
        self._keep(folder / "manifest.json", raw)
        self._keep(folder / "manifest.sig", signature)
        return content

    def set_live(self, release: Release, manifest: Manifest) -> None:
        """Remember what is live, to begin with it when the store is away at the next start."""
        self._keep_record(manifest.model, release)
        # It may have made room for another version before it was live.
        if not all(path.exists() for path in self._paths_of(manifest)):
            with suppress(StoreError):
                self.read_served(manifest)

    def withdraw(self, model: str, record: Withdrawal) -> None:
        """Remember that no version of a model is live."""
        self._keep_record(model, record)

    def holds(self, model: str, version: str) -> bool:
        """Whether a version is on the disk, whatever it is worth."""
        return (self._version_folder(model, version) / "manifest.sig").exists()

    def trusted_keys(self) -> frozenset[bytes]:
        """The keys that count now."""
        return self._trusted.fingerprint()

    def live_when_last_seen(self) -> dict[str, Release]:
        """The kept release of each model whose manifest was kept too, and holds."""
        found: dict[str, Release] = {}
        with suppress(StoreError):
            for model in self._kept.list_models():
                # Only the newest record is kept here, so no number is beyond the sequence.
                numbers, beyond = self._kept.split_releases(model)
                record = self._kept.newest_record(model, numbers + beyond, self._trusted)
                if isinstance(record, Release):
                    found[model] = record
        return found

    def _keep_record(self, model: str, record: Release | Withdrawal) -> None:
        """Keep the record in force, and no other of the model."""
        folder = self._records / model / "releases"
        path = folder / f"{record.number:08d}.json"
        self._keep(path, record.model_dump_json().encode())
        with suppress(OSError):
            for other in folder.iterdir() if path.is_file() else ():
                if other != path:  # on a full disk, the one before is better than none
                    other.unlink()

    def _open(self, model: str, version: str, read: Callable[[ModelStore], Manifest]) -> Manifest:
        try:
            manifest = read(self._kept)
        except StoreError:  # not kept, or it does not hold
            return read(self._store)
        folder = self._version_folder(model, version)
        _mark_used(folder / "manifest.json", folder / "manifest.sig")
        return manifest

    def _version_folder(self, model: str, version: str) -> Path:
        return self._records / model / "versions" / version

    def _keep(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all, then clear what there is no room for."""
        draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(content)
            draft.replace(path)
        except OSError as error:
            log.warning("model_cache_not_written", error=error.strerror)
            with suppress(OSError):
                draft.unlink()
        with self._clearing:
            self._clear(kept_now=path)

    def _clear(self, *, kept_now: Path) -> None:
        """Delete what was used least recently until the rest fits."""
        found: list[tuple[float, int, Path]] = []
        for folder in (self._files, self._records):
            for path in folder.rglob("*"):
                with suppress(OSError):  # another process may be clearing too
                    stat = path.stat()
                    if path.is_file():
                        found.append((stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in found) - self._max_bytes
        if excess <= 0:
            return
        untouchable = {kept_now, *self._paths_of_live()}
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            if path not in untouchable:
                with suppress(OSError):
                    path.unlink()
                    excess -= size

    def _paths_of_live(self) -> Iterable[Path]:
        """What a start without the store needs; it is on the disk that this is written down."""
        for model, release in self.live_when_last_seen().items():
            yield self._records / model / "releases" / f"{release.number:08d}.json"
            with suppress(StoreError):
                yield from self._paths_of(self._kept.open_release(model, release, self._trusted))

    def _paths_of(self, manifest: Manifest) -> Iterable[Path]:
        folder = self._version_folder(manifest.model, manifest.version)
        yield folder / "manifest.json"
        yield folder / "manifest.sig"
        if served := manifest.files.get(served_file(manifest)):
            yield self._files / served.sha256


def served_file(manifest: Manifest) -> str:
    """The name of the file that answers."""
    return f"model.{manifest.serving}"


def _read_sized(path: Path, size: int) -> bytes | None:
    """A file's bytes, or None if it has another size or cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size == size else None
    except OSError:
        return None


def _mark_used(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            os.utime(path)
