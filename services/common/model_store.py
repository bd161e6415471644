"""Signed models in a bucket: `<store>/<model>/versions/<version>/…` and `…/releases/<number>.json`.

Everything in the store is written once and never changed, so readers need no lock. A version is
trusted by its signature alone: nothing of it is parsed before the signature over the raw manifest
was checked, and no file is handed out before its digest was.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from services.common.filesystems import create_object, open_filesystem, translated_errors
from services.common.model_keys import (
    TrustedKeys,
    create_signing_key,
    load_signing_key,
)
from services.common.model_records import (
    Canary,
    Column,
    DataObject,
    Done,
    FileEntry,
    Manifest,
    Release,
    ReleaseTaken,
    Shadow,
    Signature,
    StoreError,
    VersionNotFound,
    VersionRefused,
    WarmUp,
    is_model_name,
    is_version_name,
    new_version_name,
)

__all__ = [
    "Canary",
    "Column",
    "DataObject",
    "FileEntry",
    "Manifest",
    "ModelStore",
    "Release",
    "ReleaseTaken",
    "Shadow",
    "Signature",
    "StoreError",
    "TrustedKeys",
    "VersionNotFound",
    "VersionRefused",
    "WarmUp",
    "create_signing_key",
    "load_signing_key",
    "new_version_name",
]

RECORD_BYTES = 64 << 20
"""More than any manifest or release record has; what is cut off there does not hold."""
RELEASE_FILE = re.compile(r"([0-9]{8})\.json")
Decide = Callable[[int, Release | None], Release | None]


class ModelStore:
    """The store at an fsspec URL: `gs://bucket[/prefix]`, `file:///dir`. Calls block.

    Every method raises StoreError if the store cannot be reached, and VersionNotFound if a
    model's or version's name is not one, before it touches a path. A folder that does not exist
    is empty.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._fs, self._root = open_filesystem(url, read_only=read_only)

    def list_models(self) -> list[str]:
        """Names of the models that have a folder, sorted."""
        return [name for name, is_model in self.list_top() if is_model]

    def list_top(self) -> list[tuple[str, bool]]:
        """The names of all that lies in the store, sorted, and whether each is a model's folder."""
        entries = self._list(self._root, "list the models")
        found = ((_base(entry["name"]), entry["type"] == "directory") for entry in entries)
        return sorted((name, is_folder and is_model_name(name)) for name, is_folder in found)

    def list_versions(self, model: str) -> list[str]:
        """The complete versions (`manifest.sig` exists), oldest first."""
        # One listing for all of them, not one look per version.
        paths = self._find(f"{self._folder(model)}/versions", f"list the versions of {model}")
        signed = (path.split("/")[0] for path in paths if path.endswith("/manifest.sig"))
        return sorted(filter(is_version_name, signed))

    def list_files(self, model: str) -> list[str]:
        """Every file of a model, whatever it is: its path in the model's folder, sorted."""
        return self._find(self._folder(model), f"list the files of {model}")

    def list_releases(self, model: str) -> list[int]:
        """The numbers that exist, ascending, whether or not the records hold."""
        entries = self._list(f"{self._folder(model)}/releases", f"list the releases of {model}")
        matches = (RELEASE_FILE.fullmatch(_base(entry["name"])) for entry in entries)
        return sorted(int(match[1]) for match in matches if match)

    def find_release(self, model: str, number: int) -> Release | None:
        """The record with that number, or None; one read.

        Raises:
            VersionRefused: there is one, but it is not a release record of that number.
        """
        what = f"release {number} of {model}"
        raw = self._read(self._release_path(model, number), what)
        if raw is None:
            return None
        try:
            release = Release.model_validate_json(raw)
        except ValidationError as error:
            raise VersionRefused(f"The record of {what} is malformed.", reason="release") from error
        if release.number != number:
            raise VersionRefused(f"The record of {what} has another number.", reason="release")
        return release

    def live_release(self, model: str, trusted: TrustedKeys) -> Release | None:
        """The highest release that verifies, or None; those that do not are passed over."""
        for number in reversed(self.list_releases(model)):
            try:
                release = self.find_release(model, number)
                if release is not None:
                    self.open_release(model, release, trusted)
                    return release
            except (VersionNotFound, VersionRefused):
                continue
        return None

    def open_release(self, model: str, release: Release, trusted: TrustedKeys) -> Manifest:
        """The manifest of the version that `release` puts live.

        Raises:
            VersionNotFound, VersionRefused: as `open_version`; also if the record was made for
                another manifest, or the version failed its gate.
        """
        manifest, digest = self._open(model, release.version, trusted)
        what = f"release {release.number} of {model}"
        if digest != release.manifest_sha256:
            raise VersionRefused(f"The {what} was made for another manifest.", reason="digest")
        if manifest.gate == "failed":
            raise VersionRefused(f"The {what} names a version that failed.", reason="gate")
        return manifest

    def open_version(self, model: str, version: str, trusted: TrustedKeys) -> Manifest:
        """A version's manifest, its signature and names checked; the gate is the caller's to judge.

        Raises:
            VersionNotFound: there is no such version.
            VersionRefused: the signature, the manifest or the names in it do not hold.
        """
        return self._open(model, version, trusted)[0]

    def manifest_sha256(self, model: str, version: str) -> str:
        """SHA-256 (hex) of `manifest.json` as it lies there, unverified.

        Raises:
            VersionNotFound: there is no such version.
        """
        return hashlib.sha256(self.read_manifest(model, version)[0]).hexdigest()

    def read_file(self, manifest: Manifest, name: str) -> bytes:
        """A file of a version, its size and digest checked.

        Raises:
            VersionRefused: it is missing, is not in the manifest, or is not the one signed.
        """
        what = f"{name} of {manifest.model} {manifest.version}"
        entry = manifest.files.get(name)
        if entry is None:
            raise VersionRefused(f"The manifest does not list {what}.", reason="name")
        path = f"{self._version_folder(manifest.model, manifest.version)}/{name}"
        # One byte more is enough to see that it is too long: an exchanged file fills no memory.
        content = self._read(path, what, limit=entry.size + 1)
        if content is not None and hashlib.sha256(content).hexdigest() == entry.sha256:
            return content
        raise VersionRefused(f"The file {what} is not the one signed.", reason="digest")

    def find_done(self, model: str, key: str) -> str | None:
        """The version that a run under `key` made, or None if no such run finished."""
        return self.read_done(model, hashlib.sha256(key.encode()).hexdigest())

    def read_done(self, model: str, digest: str) -> str | None:
        """As `find_done`, by the SHA-256 (hex) of the key; VersionRefused if it is malformed."""
        raw = self._read(self._done_path(model, digest), f"a done marker of {model}")
        if raw is None:
            return None
        try:
            return Done.model_validate_json(raw).version
        except ValidationError as error:
            raise VersionRefused(f"A done marker of {model} is garbled.", reason="done") from error

    def publish(
        self, manifest: Manifest, files: dict[str, bytes], key: Ed25519PrivateKey
    ) -> Manifest:
        """Write a version: its files, then the manifest, and last the signature.

        Args:
            manifest: its `files` are filled in here, from the bytes that are written.

        Returns:
            The manifest as signed.

        Raises:
            StoreError: another version of this name is there, or it cannot be written.
        """
        entries = {
            name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for name, content in files.items()
        }
        # Validated, unlike `model_copy`: the names become paths.
        signed = Manifest.model_validate({**dict(manifest), "files": entries})
        raw = signed.model_dump_json(indent=2).encode()
        folder = self._version_folder(signed.model, signed.version)
        for name, content in {**files, "manifest.json": raw, "manifest.sig": key.sign(raw)}.items():
            what = f"{name} of {signed.model} {signed.version}"
            if not self._create(f"{folder}/{name}", content, what):
                raise StoreError(f"There already is another {what}.")
        return signed

    def append_release(self, model: str, *, decide: Decide) -> Release | None:
        """Write the record after the highest number that exists, verified or not.

        Args:
            decide: gets the number to write and None, or, once somebody else took the number
                meant before, the next number and their record. Returns the record to write, or
                None when nothing is left to do. What it reads from the store is never older
                than the number it gets.

        Returns:
            The record written, or None if `decide` wanted none.

        Raises:
            ReleaseTaken: raised by `decide`, if it does not go on after having lost.
        """
        taken: Release | None = None
        while True:
            number = max(self.list_releases(model), default=0) + 1
            release = decide(number, taken)
            if release is None:
                return None
            raw = release.model_dump_json(indent=2).encode()
            if self._create(self._release_path(model, number), raw, f"release {number} of {model}"):
                return release
            try:
                taken = self.find_release(model, number)
            except VersionRefused:
                taken = None  # rubbish decides nothing, it only uses up its number

    def mark_done(self, model: str, key: str, version: str) -> None:
        """Remember that a run under `key` has finished; of several, the first stands."""
        raw = Done(version=version).model_dump_json().encode()
        path = self._done_path(model, hashlib.sha256(key.encode()).hexdigest())
        self._create(path, raw, f"a done marker of {model}")

    def _folder(self, model: str) -> str:
        if not is_model_name(model):
            raise VersionNotFound(f"{ascii(model)[:80]} is not a model name.")
        return f"{self._root}/{model}"

    def _version_folder(self, model: str, version: str) -> str:
        if not is_version_name(version):
            raise VersionNotFound(f"{ascii(version)[:80]} is not a version name.")
        return f"{self._folder(model)}/versions/{version}"

    def _release_path(self, model: str, number: int) -> str:
        return f"{self._folder(model)}/releases/{number:08d}.json"

    def _done_path(self, model: str, digest: str) -> str:
        return f"{self._folder(model)}/once/{digest}.json"

    def _open(self, model: str, version: str, trusted: TrustedKeys) -> tuple[Manifest, str]:
        """A verified manifest, and the SHA-256 of the very bytes that were verified."""
        what = f"version {version} of {model}"
        raw, signature = self.read_manifest(model, version)
        if not trusted.verify(raw, signature):
            raise VersionRefused(f"No trusted key signed {what}.", reason="signature")
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            refusal = VersionRefused(f"The manifest of {what} is malformed.", reason="manifest")
            raise refusal from error
        if (manifest.model, manifest.version) != (model, version):
            raise VersionRefused(f"The manifest of {what} names another one.", reason="name")
        return manifest, hashlib.sha256(raw).hexdigest()

    def read_manifest(self, model: str, version: str) -> tuple[bytes, bytes]:
        """`manifest.json` and `manifest.sig` as they lie there, unverified.

        Raises:
            VersionNotFound: there is no such version.
            VersionRefused: it has a signature, but no manifest.
        """
        folder, what = self._version_folder(model, version), f"version {version} of {model}"
        signature = self._read(f"{folder}/manifest.sig", what)
        if signature is None:
            raise VersionNotFound(f"There is no {what}.")
        raw = self._read(f"{folder}/manifest.json", what)
        if raw is None:
            raise VersionRefused(f"The manifest of {what} is missing.", reason="manifest")
        return raw, signature

    def _list(self, folder: str, doing: str) -> list[dict[str, Any]]:
        with translated_errors(doing):
            try:
                return list(self._fs.ls(folder, detail=True))
            except FileNotFoundError:
                return []

    def _find(self, folder: str, doing: str) -> list[str]:
        """The files at any depth, as paths in the folder, sorted."""
        with translated_errors(doing):
            paths = self._fs.find(folder, on_error=_raise_unless_missing)
        return sorted(path.removeprefix(f"{folder}/") for path in paths)

    def _read(self, path: str, what: str, *, limit: int = RECORD_BYTES) -> bytes | None:
        """The first `limit` bytes of a file, or None if there is none."""
        with translated_errors(f"read {what}"):
            try:
                return bytes(self._fs.cat_file(path, start=0, end=limit))
            except FileNotFoundError:
                return None
            except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
                # This one path is spoilt; other faults are the store's, and may pass.
                raise VersionRefused(f"Cannot read {what}.", reason="unreadable") from error

    def _create(self, path: str, content: bytes, what: str) -> bool:
        """Create a file that must not exist; True if these very bytes are there afterwards.

        A file found there with our bytes is ours, by a first try whose answer was lost.
        """
        with translated_errors(f"write {what}"):
            if create_object(self._fs, path, content):
                return True
        return self._read(path, what) == content


def _base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
