"""A store in a folder or bucket with untrained versions, and ways to damage its files."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.keys import TrustedKeys, create_signing_key
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
        return bytes(self.filesystem.cat_file(self.path))

    def write_bytes(self, content: bytes) -> None:
        self.filesystem.makedirs(self.path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(self.path, content)

    def unlink(self) -> None:
        self.filesystem.rm_file(self.path)

    def flip_bit(self) -> None:
        """Flip one bit in the middle."""
        content = bytearray(self.read_bytes())
        content[len(content) // 2] ^= 1
        self.write_bytes(bytes(content))


@dataclass(frozen=True)
class World:
    """A store, and a folder with its trusted key."""

    folder: Path
    url: str
    key: Ed25519PrivateKey
    trusted: TrustedKeys

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.url)

    def publish(self, version: str = FIRST, **changes: Any) -> Manifest:
        return self.store.publish(manifest(version, **changes), {"model.onnx": b"onnx"}, self.key)

    def blob(self, path: str) -> Blob:
        """Return the file at a path in the model's folder."""
        filesystem, root = open_filesystem(self.url)
        return Blob(filesystem, f"{root}/wine/{path}")

    def path(self, version: str, name: str) -> Blob:
        return self.blob(f"versions/{version}/{name}")

    def record(self, number: int) -> Blob:
        return self.blob(f"releases/{number:08d}.json")

    def release(self, version: str, **changes: Any) -> Release:
        store = self.store
        digest = store.manifest_sha256("wine", version)
        written = store.append_release(
            "wine", decide=lambda number, _: release(number, version, digest, **changes)
        )
        assert isinstance(written, Release)
        return written


def new_world(folder: Path, url: str) -> World:
    key = create_signing_key(folder / "keys/signing.pem", folder / "keys/trusted")
    return World(folder, url, key, TrustedKeys.load(folder / "keys/trusted"))


def publish_again(
    store: ModelStore, trusted: TrustedKeys, key: Ed25519PrivateKey, model: str
) -> str:
    """Publish the live version's files under a new version name and return it."""
    live = store.live_release(model, trusted)
    assert live is not None
    signed = store.open_release(model, live, trusted)
    files = {name: store.read_file(signed, name) for name in signed.files}
    version = new_version_name(datetime.now(UTC))
    store.publish(Manifest.model_validate({**dict(signed), "version": version}), files, key)
    return version


def manifest(version: str, **changes: Any) -> Manifest:
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
