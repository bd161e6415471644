"""Signed models in a bucket: `<store>/<model>/versions/<version>/…` and `…/releases/<number>.json`.

Everything in the store is written once and never changed, so readers need no lock. Only the
signature makes a version trusted: nothing is parsed before the signature over the raw manifest is
verified, and no file is returned before its digest is.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from registry.keys import (
    TrustedKeys,
)
from registry.records import (
    FileEntry,
    Manifest,
    PinRecord,
    Release,
    RunRecord,
    StoreError,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
    is_model_name,
    is_version_name,
    next_number,
    split_sequence,
)
from registry.storage.files import StoreFiles

NUMBERED_FILE = re.compile(r"([0-9]{8})\.json")
RUN_FILE = re.compile(r"([0-9a-f]{64})\.json")
MAX_TRIES = 1_000
"""How often a writer retries after losing its number to another writer."""
ReleaseRecord = Release | Withdrawal
Kind = Literal["releases", "pins", "deprecations"]


class Numbered(Protocol):
    """A record that is stored under its number."""

    @property
    def number(self) -> int: ...
    def model_dump_json(self, *, indent: int) -> str: ...


R = TypeVar("R", bound=Numbered)
Decide = Callable[[int, R | None], R | None]

_release_record: TypeAdapter[ReleaseRecord] = TypeAdapter(ReleaseRecord)
_pin_record = TypeAdapter(PinRecord)


class ModelStore(StoreFiles):
    """The store at an fsspec URL: `gs://bucket[/prefix]`, `file:///dir`. Calls block.

    Every method raises StoreError if the store is unreachable, and VersionNotFound for an invalid
    model or version name, before using it in a path. A missing folder counts as empty.
    """

    def list_models(self) -> list[str]:
        """Return the names of the models that have a folder, sorted."""
        return [name for name, is_model in self.list_top() if is_model]

    def list_top(self) -> list[tuple[str, bool]]:
        """Return the names of all top-level entries, sorted, and whether each is a model folder."""
        entries = self._list(self._root, "list the models")
        top = ((_base_name(entry["name"]), entry["type"] == "directory") for entry in entries)
        return sorted((name, is_folder and is_model_name(name)) for name, is_folder in top)

    def list_versions(self, model: str) -> list[str]:
        """Return the complete versions (those with a `manifest.sig`), oldest first."""
        # One listing for all versions instead of one call for each.
        paths = self._find(f"{self._folder(model)}/versions", f"list the versions of '{model}'")
        signed = (path.split("/")[0] for path in paths if path.endswith("/manifest.sig"))
        return sorted(filter(is_version_name, signed))

    def list_files(self, model: str) -> list[str]:
        """Return the paths of all files of a model, relative to its folder, sorted."""
        return self._find(self._folder(model), f"list the files of '{model}'")

    def list_releases(self, model: str) -> list[int]:
        """Return the release numbers in sequence, ascending, whether or not the records verify."""
        return self.list_numbers(model, "releases")

    def split_releases(self, model: str) -> tuple[list[int], list[int]]:
        """Return the numbers in sequence, and the strays that readers and writers ignore."""
        return split_sequence(self._list_numbers(model, "releases"))

    def find_release(self, model: str, number: int) -> Release | None:
        """Return the release with that number; None if it is missing or a withdrawal."""
        record = self.find_record(model, number)
        return record if isinstance(record, Release) else None

    def find_record(self, model: str, number: int) -> ReleaseRecord | None:
        """Return the release or withdrawal with that number, or None; one read.

        Raises:
            VersionRefused: the file is malformed or its record has another number.
        """
        return self.find_numbered(model, "releases", number, _release_record)

    def live_release(
        self, model: str, trusted: TrustedKeys, *, allow_joblib: bool = True
    ) -> Release | None:
        """Return the highest release that verifies, or None.

        Args:
            allow_joblib: whether a version that is a pickle may be live.
        """
        record = self.live_record(model, trusted, allow_joblib=allow_joblib)
        return record if isinstance(record, Release) else None

    def live_record(
        self, model: str, trusted: TrustedKeys, *, allow_joblib: bool = True
    ) -> ReleaseRecord | None:
        """Return the live release like `live_release`, or the withdrawal in force."""
        numbers = self.list_releases(model)
        return self.newest_record(model, numbers, trusted, allow_joblib=allow_joblib)

    def newest_record(
        self, model: str, numbers: list[int], trusted: TrustedKeys, *, allow_joblib: bool = True
    ) -> ReleaseRecord | None:
        """Return the record with the highest of these ascending numbers that verifies, or None."""
        for number in reversed(numbers):
            try:
                record = self.find_record(model, number)
                if isinstance(record, Withdrawal):
                    return record
                if record is not None:
                    manifest = self.open_release(model, record, trusted)
                    if manifest.serving != "joblib" or allow_joblib:
                        return record
            except (VersionNotFound, VersionRefused):
                continue
        return None

    def open_release(self, model: str, release: Release, trusted: TrustedKeys) -> Manifest:
        """Return the manifest of the version that `release` makes live.

        Raises:
            VersionNotFound, VersionRefused: as for `open_version`; also if the record was made for
                another manifest, or the version failed its gate.
        """
        manifest, digest = self._open(model, release.version, trusted)
        what = f"Release {release.number} of '{model}'"
        if digest != release.manifest_sha256:
            raise VersionRefused(f"{what} was made for another manifest.", reason="digest")
        if manifest.gate == "failed":
            raise VersionRefused(f"{what} names a version that failed its gate.", reason="gate")
        return manifest

    def open_version(self, model: str, version: str, trusted: TrustedKeys) -> Manifest:
        """Return a version's verified manifest; the caller decides what its gate allows.

        Raises:
            VersionNotFound: the version does not exist.
            VersionRefused: the signature, the manifest or the names in it are invalid.
        """
        return self._open(model, version, trusted)[0]

    def manifest_sha256(self, model: str, version: str) -> str:
        """Return the SHA-256 (hex) of the stored `manifest.json`, unverified.

        Raises:
            VersionNotFound: the version does not exist.
        """
        return hashlib.sha256(self.read_manifest(model, version)[0]).hexdigest()

    def read_file(self, manifest: Manifest, name: str) -> bytes:
        """Return a file of a version after checking its size and digest.

        Raises:
            VersionRefused: it is missing, is not in the manifest, or differs from the signed file.
        """
        what = f"'{name}' of '{manifest.model}' {manifest.version}"
        entry = manifest.files.get(name)
        if entry is None:
            raise VersionRefused(f"The manifest does not list {what}.", reason="name")
        path = f"{self._version_folder(manifest.model, manifest.version)}/{name}"
        # One extra byte reveals a longer file, so a swapped one cannot fill the memory.
        content = self._read(path, what, limit=entry.size + 1)
        if content is not None and hashlib.sha256(content).hexdigest() == entry.sha256:
            return content
        raise VersionRefused(f"File {what} does not match its signed digest.", reason="digest")

    def find_run(self, model: str, key: str) -> RunRecord | None:
        """Return the record of the run with an idempotency key, or None if no such run finished."""
        return self.read_run(model, hashlib.sha256(key.encode()).hexdigest())

    def list_runs(self, model: str) -> list[str]:
        """Return the SHA-256 (hex) of each idempotency key under which a run finished."""
        entries = self._list(f"{self._folder(model)}/once", f"list the runs of '{model}'")
        matches = (RUN_FILE.fullmatch(_base_name(entry["name"])) for entry in entries)
        return sorted(match[1] for match in matches if match)

    def read_run(self, model: str, digest: str) -> RunRecord | None:
        """Return the record that `find_run` returns, given the SHA-256 (hex) of the key.

        Raises:
            VersionRefused: the record is malformed.
        """
        raw = self._read(self._run_path(model, digest), f"a run record of '{model}'")
        if raw is None:
            return None
        try:
            return RunRecord.model_validate_json(raw)
        except ValidationError as error:
            what = f"A run record of '{model}'"
            raise VersionRefused(f"{what} is malformed.", reason="run") from error

    def publish(
        self, manifest: Manifest, files: dict[str, bytes], key: Ed25519PrivateKey
    ) -> Manifest:
        """Write a version: its files, then the manifest, and the signature last.

        Args:
            manifest: its `files` are filled in here from the bytes written.

        Returns:
            The signed manifest.

        Raises:
            StoreError: a different version with this name exists, or it cannot be written.
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
            what = f"'{name}' of '{signed.model}' {signed.version}"
            if not self._create(f"{folder}/{name}", content, what):
                raise StoreError(f"A different {what} already exists.")
        return signed

    def append_release(self, model: str, *, decide: Decide[ReleaseRecord]) -> ReleaseRecord | None:
        """Write a release or withdrawal under the next free number; see `append_numbered`."""
        return self.append_numbered(model, "releases", _release_record, decide=decide)

    def append_pin(self, model: str, *, decide: Decide[PinRecord]) -> PinRecord | None:
        """Write a pin record under the next free number; see `append_numbered`."""
        return self.append_numbered(model, "pins", _pin_record, decide=decide)

    def append_numbered(
        self, model: str, kind: Kind, shape: TypeAdapter[R], *, decide: Decide[R]
    ) -> R | None:
        """Write a record under the next free number, whether or not earlier records verify.

        Args:
            decide: receives the number to write and None; if another writer took that number, it
                is called again with the next number and the winning record. It returns the record
                to write, or None to write nothing. Whatever it reads from the store is at least
                as new as the number it receives. It may raise an error to give up after losing
                its number, such as `ReleaseTaken`.

        Returns:
            The record written, or None if `decide` returned None.
        """
        winner: R | None = None
        for _ in range(MAX_TRIES):
            number = next_number(self.list_numbers(model, kind))
            record = decide(number, winner)
            if record is None or self._create_numbered(model, kind, record):
                return record
            try:
                winner = self.find_numbered(model, kind, number, shape)
            except VersionRefused:
                winner = None  # a malformed record only occupies its number
        noun = kind.removesuffix("s")
        raise StoreError(f"Other writers took every {noun} number of '{model}'; try again.")

    def list_numbers(self, model: str, kind: Kind) -> list[int]:
        """Return the numbers in sequence, ascending, whether or not the records are valid."""
        return split_sequence(self._list_numbers(model, kind))[0]

    def find_numbered(self, model: str, kind: Kind, number: int, shape: TypeAdapter[R]) -> R | None:
        """Return the record with that number, or None if it is missing; one read.

        Raises:
            VersionRefused: the file is malformed or its record has another number.
        """
        noun = kind.removesuffix("s")
        what = f"{noun} {number} of '{model}'"
        raw = self._read(self._numbered_path(model, kind, number), what)
        if raw is None:
            return None
        try:
            record = shape.validate_json(raw)
        except ValidationError as error:
            raise VersionRefused(f"The record of {what} is malformed.", reason=noun) from error
        if record.number != number:
            raise VersionRefused(f"The record of {what} has another number.", reason=noun)
        return record

    def list_pins(self, model: str) -> list[int]:
        """Return the pin numbers in sequence, ascending, whether or not the records are valid."""
        return self.list_numbers(model, "pins")

    def find_pin(self, model: str, number: int) -> PinRecord | None:
        """Return the pin record with that number, or None.

        Raises:
            VersionRefused: the record is malformed.
        """
        return self.find_numbered(model, "pins", number, _pin_record)

    def record_run(self, model: str, key: str, run: RunRecord) -> None:
        """Store the outcome of a run under its idempotency key unless one is already stored."""
        path = self._run_path(model, hashlib.sha256(key.encode()).hexdigest())
        self._create(path, run.model_dump_json().encode(), f"a run record of '{model}'")

    def _folder(self, model: str) -> str:
        if not is_model_name(model):
            raise VersionNotFound(f"{ascii(model)[:80]} is not a valid model name.")
        return f"{self._root}/{model}"

    def _version_folder(self, model: str, version: str) -> str:
        if not is_version_name(version):
            raise VersionNotFound(f"{ascii(version)[:80]} is not a valid version name.")
        return f"{self._folder(model)}/versions/{version}"

    def _numbered_path(self, model: str, kind: Kind, number: int) -> str:
        return f"{self._folder(model)}/{kind}/{number:08d}.json"

    def _list_numbers(self, model: str, kind: Kind) -> list[int]:
        entries = self._list(f"{self._folder(model)}/{kind}", f"list the {kind} of '{model}'")
        matches = (NUMBERED_FILE.fullmatch(_base_name(entry["name"])) for entry in entries)
        return [int(match[1]) for match in matches if match]

    def _create_numbered(self, model: str, kind: Kind, record: Numbered) -> bool:
        path = self._numbered_path(model, kind, record.number)
        raw = record.model_dump_json(indent=2).encode()
        return self._create(path, raw, f"number {record.number} of the {kind} of '{model}'")

    def _run_path(self, model: str, digest: str) -> str:
        return f"{self._folder(model)}/once/{digest}.json"

    def _open(self, model: str, version: str, trusted: TrustedKeys) -> tuple[Manifest, str]:
        """Return a verified manifest and the SHA-256 of the bytes that were verified."""
        what = f"version {version} of '{model}'"
        raw, signature = self.read_manifest(model, version)
        if not trusted.verify(raw, signature):
            raise VersionRefused(f"No trusted key signed {what}.", reason="signature")
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            refusal = VersionRefused(f"The manifest of {what} is malformed.", reason="manifest")
            raise refusal from error
        if (manifest.model, manifest.version) != (model, version):
            raise VersionRefused(f"The manifest of {what} names another version.", reason="name")
        return manifest, hashlib.sha256(raw).hexdigest()

    def read_manifest(self, model: str, version: str) -> tuple[bytes, bytes]:
        """Return the stored `manifest.json` and `manifest.sig`, unverified.

        Raises:
            VersionNotFound: the version does not exist.
            VersionRefused: it has a signature but no manifest.
        """
        folder, what = self._version_folder(model, version), f"version {version} of '{model}'"
        signature = self._read(f"{folder}/manifest.sig", what)
        if signature is None:
            raise VersionNotFound(f"There is no {what}.")
        raw = self._read(f"{folder}/manifest.json", what)
        if raw is None:
            raise VersionRefused(f"The manifest of {what} is missing.", reason="manifest")
        return raw, signature


def _base_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
