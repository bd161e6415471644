"""A local disk cache of the model store, so that a restart does not depend on the store.

    <folder>/files/<sha256>                       a version's files, named by their digest
    <folder>/records/<model>/versions/<version>/  manifest.json and manifest.sig
    <folder>/records/<model>/releases/            the last release that was live
    <folder>/records/<model>/deprecations/        what was decided about its versions

`records` has the same layout as the store, so the same code reads and verifies it. The cache is not
trusted: signatures and digests are checked on every read, and invalid entries are fetched again.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from registry.deprecations import DeprecationRecord, Deprecations, find_deprecations
from registry.explain.artefact import FILE as EXPLAINER_FILE
from registry.keys import TrustedKeys
from registry.records import Manifest, Release, StoreError, VersionRefused, Withdrawal
from registry.store import ModelStore

log = structlog.get_logger()


class ModelCache:
    """Reads versions from the disk if possible, otherwise from the store. All calls block.

    Safe for several threads, and for several processes on the same folder. A full or broken disk
    causes more fetches but no errors.

    Args:
        folder: created on the first write.
        max_bytes: the size limit; the least recently used files are deleted first, but never those
            of a live version.
    """

    def __init__(
        self, store: ModelStore, trusted: TrustedKeys, *, folder: Path, max_bytes: int
    ) -> None:
        self._store = store
        self._trusted = trusted
        self._files = folder / "files"
        self._records = folder / "records"
        self._cached = ModelStore(f"file://{self._records.absolute()}")
        self._max_bytes = max_bytes
        self._evicting = threading.Lock()

    def open_release(self, model: str, release: Release) -> Manifest:
        """Return the manifest of a release; raises the same errors as `ModelStore.open_release`."""
        return self._open(
            model, release.version, lambda s: s.open_release(model, release, self._trusted)
        )

    def open_version(self, model: str, version: str) -> Manifest:
        """Return a version's manifest; raises the same errors as `ModelStore.open_version`."""
        return self._open(model, version, lambda s: s.open_version(model, version, self._trusted))

    def list_versions(self, model: str) -> list[str]:
        """Return the versions in the store, or the cached ones if the store is unavailable."""
        try:
            return self._store.list_versions(model)
        except StoreError:
            if cached := self._cached.list_versions(model):
                return cached
            raise

    def read_served(self, manifest: Manifest) -> bytes:
        """Read a version's model file; see `read_file`."""
        return self.read_file(manifest, served_file(manifest))

    def read_explainer(self, manifest: Manifest) -> bytes | None:
        """Read a version's explainer, or return None if it has none; see `read_file`."""
        return None if manifest.explainer is None else self.read_file(manifest, EXPLAINER_FILE)

    def read_file(self, manifest: Manifest, name: str) -> bytes:
        """Read a file of a version, and check its size and digest.

        A version new to this disk is read from the store even if another version had the same file,
        because the object in the store is what was released and must be valid itself.

        Raises:
            VersionRefused: the file is missing, not in the manifest, or not the signed one.
            StoreError: the file is not cached, and the store cannot be read.
        """
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
        self._write(path, content)
        self._write(folder / "manifest.json", raw)
        self._write(folder / "manifest.sig", signature)
        return content

    def set_live(self, release: Release, manifest: Manifest) -> None:
        """Record the live release, for a later start without the store."""
        self._write_record(manifest.model, release)
        # Its files may have been evicted before it went live.
        if not all(path.exists() for path in self._paths_of(manifest)):
            with suppress(StoreError):
                self.read_served(manifest)
                self.read_explainer(manifest)

    def withdraw(self, model: str, record: Withdrawal) -> None:
        """Record that no version of a model is live."""
        self._write_record(model, record)

    def keep_deprecation(self, model: str, record: DeprecationRecord) -> None:
        """Keep a decision about a version."""
        path = self._records / model / "deprecations" / f"{record.number:08d}.json"
        self._write(path, record.model_dump_json().encode())

    def deprecations_when_last_seen(self, model: str) -> Deprecations:
        """Return the deprecations that were in force."""
        with suppress(StoreError):
            return find_deprecations(self._cached, model)
        return {}

    def has_version(self, model: str, version: str) -> bool:
        """Return whether a version is on the disk, valid or not."""
        return (self._version_folder(model, version) / "manifest.sig").exists()

    def trusted_keys(self) -> frozenset[bytes]:
        """Return the fingerprints of the keys trusted now."""
        return self._trusted.fingerprint()

    def live_when_last_seen(self) -> dict[str, Release]:
        """Return each model's cached release, if the release is valid."""
        found: dict[str, Release] = {}
        with suppress(StoreError):
            for model in self._cached.list_models():
                # The cache has only the newest record, so there is no sequence to check against.
                numbers, beyond = self._cached.split_releases(model)
                record = self._cached.newest_record(model, numbers + beyond, self._trusted)
                if isinstance(record, Release):
                    found[model] = record
        return found

    def _write_record(self, model: str, record: Release | Withdrawal) -> None:
        """Write the record in force, and delete the model's other records."""
        folder = self._records / model / "releases"
        path = folder / f"{record.number:08d}.json"
        self._write(path, record.model_dump_json().encode())
        with suppress(OSError):
            for other in folder.iterdir() if path.is_file() else ():
                if other != path:  # on a full disk the write failed: keep the old one
                    other.unlink()

    def _open(self, model: str, version: str, read: Callable[[ModelStore], Manifest]) -> Manifest:
        try:
            manifest = read(self._cached)
        except StoreError:  # not cached, or invalid
            return read(self._store)
        folder = self._version_folder(model, version)
        _mark_used(folder / "manifest.json", folder / "manifest.sig")
        return manifest

    def _version_folder(self, model: str, version: str) -> Path:
        return self._records / model / "versions" / version

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file atomically, then evict others if there is no room."""
        draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_bytes(content)
            draft.replace(path)
        except OSError as error:
            log.warning("model_cache_write_failed", error=error.strerror)
            with suppress(OSError):
                draft.unlink()
        with self._evicting:
            self._evict(just_written=path)

    def _evict(self, *, just_written: Path) -> None:
        """Delete the least recently used files until the rest fits."""
        found: list[tuple[float, int, Path]] = []
        for folder in (self._files, self._records):
            for path in folder.rglob("*"):
                with suppress(OSError):  # another process may have deleted it
                    stat = path.stat()
                    if path.is_file():
                        found.append((stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in found) - self._max_bytes
        if excess <= 0:
            return
        protected = {just_written, *self._paths_of_live()}
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            if path not in protected:
                with suppress(OSError):
                    path.unlink()
                    excess -= size

    def _paths_of_live(self) -> Iterable[Path]:
        """Yield the files that a start without the store needs."""
        for model, release in self.live_when_last_seen().items():
            yield self._records / model / "releases" / f"{release.number:08d}.json"
            with suppress(StoreError):
                yield from self._paths_of(self._cached.open_release(model, release, self._trusted))

    def _paths_of(self, manifest: Manifest) -> Iterable[Path]:
        folder = self._version_folder(manifest.model, manifest.version)
        yield folder / "manifest.json"
        yield folder / "manifest.sig"
        for name in (served_file(manifest), EXPLAINER_FILE):
            if entry := manifest.files.get(name):
                yield self._files / entry.sha256


def served_file(manifest: Manifest) -> str:
    """Return the name of the version's model file."""
    return f"model.{manifest.serving}"


def _read_sized(path: Path, size: int) -> bytes | None:
    """Return a file's content, or None if its size differs or it cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size == size else None
    except OSError:
        return None


def _mark_used(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            os.utime(path)
