"""Model stores: a platform's, and stores of untrained versions whose files tests can damage."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.keys import TrustedKeys, create_signing_key, load_signing_key
from registry.records import Column, Manifest, Release, Signature, WarmUp, new_version_name
from registry.storage.filesystems import open_filesystem
from registry.store import ModelStore

FIRST, SECOND, THIRD = (f"2026112{day}t120000z-0000000{day}" for day in (1, 2, 3))


@dataclass(frozen=True)
class Blob:
    """A file of a store, which tests can overwrite and delete directly."""

    filesystem: Any
    path: str

    def read_bytes(self) -> bytes:
        """Return the file's content."""
        return bytes(self.filesystem.cat_file(self.path))

    def write_bytes(self, content: bytes) -> None:
        """Create or overwrite the file."""
        self.filesystem.makedirs(self.path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(self.path, content)

    def unlink(self) -> None:
        """Delete the file."""
        self.filesystem.rm_file(self.path)

    def flip_bit(self) -> None:
        """Flip one bit in the middle of the file."""
        content = bytearray(self.read_bytes())
        content[len(content) // 2] ^= 1
        self.write_bytes(bytes(content))


@dataclass(frozen=True)
class SignedStore:
    """A model store, and a folder with the key that signs its versions."""

    folder: Path
    url: str
    key: Ed25519PrivateKey
    trusted: TrustedKeys

    @property
    def store(self) -> ModelStore:
        """The store."""
        return ModelStore(self.url)

    def publish(self, version: str = FIRST, **changes: Any) -> Manifest:
        """Sign and publish a version, with changes of its manifest."""
        return self.store.publish(manifest(version, **changes), {"model.onnx": b"onnx"}, self.key)

    def blob(self, path: str) -> Blob:
        """Return the file at a path in the model's folder."""
        filesystem, root = open_filesystem(self.url)
        return Blob(filesystem, f"{root}/wine/{path}")

    def path(self, version: str, name: str) -> Blob:
        """Return a file of a version."""
        return self.blob(f"versions/{version}/{name}")

    def record(self, number: int) -> Blob:
        """Return the file of a release record."""
        return self.blob(f"releases/{number:08d}.json")

    def release(self, version: str, **changes: Any) -> Release:
        """Append a release of a version, with changes of its record."""
        store = self.store
        digest = store.manifest_sha256("wine", version)
        record = store.append_release(
            "wine", decide=lambda number, _: release(number, version, digest, **changes)
        )
        assert isinstance(record, Release)
        return record


def new_signed_store(folder: Path, url: str) -> SignedStore:
    """Return an empty store, whose key is new if the folder has none."""
    key = create_signing_key(folder / "keys/signing.pem", folder / "keys/trusted")
    return SignedStore(folder, url, key, TrustedKeys.load(folder / "keys/trusted"))


@dataclass(frozen=True)
class PlatformStore:
    """The model store of a platform, with the keys from its state folder.

    Args:
        url: by default the folder of `tollgate up`.
    """

    home: Path
    url: str = ""

    @property
    def store(self) -> ModelStore:
        """The store."""
        return ModelStore(self.url or f"file://{self.home.absolute()}/models")

    @property
    def trusted(self) -> TrustedKeys:
        """The keys whose signatures the platform accepts."""
        return TrustedKeys.load(self.home / "keys/trusted")

    def live(self, model: str) -> Release:
        """Return the live release of a model, which must have one."""
        live = self.store.live_release(model, self.trusted)
        assert live is not None, f"no version of {model} is live"
        return live

    def publish_copy(self, model: str, files: Mapping[str, bytes] = {}, **changes: Any) -> str:
        """Publish a copy of the live version; return the copy's name.

        Args:
            files: replaced files.
            changes: of the manifest.
        """
        store = self.store
        signed = store.open_release(model, self.live(model), self.trusted)
        copied = {name: store.read_file(signed, name) for name in signed.files}
        version = new_version_name(datetime.now(UTC))
        copy = Manifest.model_validate({**dict(signed), "version": version, **changes})
        store.publish(copy, {**copied, **files}, load_signing_key(self.home / "keys/signing.pem"))
        return version


def manifest(version: str, **changes: Any) -> Manifest:
    """Return the manifest of an untrained version, with changes."""
    signature = Signature(
        task="classification",
        target="class",
        columns=[Column(name="alcohol", kind="number")],
        classes=[0, 1],
    )
    fields: dict[str, Any] = {
        "model": "wine",
        "version": version,
        "gate": "passed",
        "signature": signature,
        "metrics": {},
        "data": [],
        "warm_up": WarmUp(rows=[[1.0], [None]], predictions=[0, 1], probabilities=[[1, 0], [0, 1]]),
        "environment": {},
        "files": {},
        "created_at": datetime(2026, 11, 22, tzinfo=UTC),
    }
    return Manifest.model_validate(fields | changes)


def release(number: int, version: str, digest: str, **changes: Any) -> Release:
    """Return a release record, with changes."""
    fields: dict[str, Any] = {
        "number": number,
        "previous": number - 1 or None,
        "version": version,
        "manifest_sha256": digest,
        "action": "release",
        "canary": None,
        "shadow": None,
        "by": "ada@lab",
        "reason": "",
        "time": datetime.now(UTC),
    }
    return Release.model_validate(fields | changes)
