"""A copy of the sample store that a test may change, and the components that serve it."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
from prometheus_client import CollectorRegistry

from registry.keys import TrustedKeys, create_signing_key, load_signing_key
from registry.records import Manifest, Release, Withdrawal, new_version_name
from registry.store import ModelStore
from services.inference.models.cache import ModelCache
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.table import ModelTable
from services.inference.models.watcher import Watcher
from tests.integration.inference.samples import Store


class Shelf:
    """A store in `folder/models`, and the components of a process with its cache."""

    def __init__(self, samples: Store, folder: Path) -> None:
        self.folder = folder / "models"
        if not self.folder.exists():
            shutil.copytree(Path(samples.url.removeprefix("file://")), self.folder)
        self.cache_folder = folder / "cache"
        self.key = load_signing_key(samples.trusted.parent / "signing.pem")
        self.trusted_folder = samples.trusted
        self.trusted = TrustedKeys.load(samples.trusted)
        self.store_url = f"file://{self.folder}"
        self.store = ModelStore(self.store_url)
        self.start()

    def start(
        self,
        *,
        models_max_bytes: int = 0,
        cache_max_bytes: int = 2**30,
        allow_joblib: bool = False,
        poll_s: float = 0.01,
        call_deadline_s: float = 10.0,
        load_waits_s: float = 10.0,
        listing_ttl_s: float = 0.0,
        store: ModelStore | None = None,
    ) -> None:
        """Replace the components, as a restart would; the disk does not change."""
        read = store or self.store
        self.faults: list[str] = []
        self.metrics = CollectorRegistry()
        shared = ModelMetrics(self.metrics)
        self.table = ModelTable(max_bytes=models_max_bytes, metrics=shared)
        self.cache = ModelCache(
            read, self.trusted, folder=self.cache_folder, max_bytes=cache_max_bytes
        )
        self.loader = Loader(
            self.cache,
            self.table,
            allow_joblib=allow_joblib,
            metrics=shared,
            load_waits_s=load_waits_s,
            listing_ttl_s=listing_ttl_s,  # 0: a version can be called once it is published
            listing_ttl_factor=0.0,
        )
        self.watcher = Watcher(
            read,
            self.cache,
            self.loader,
            self.table,
            poll_s=poll_s,
            canary_refused=lambda name, release, fault: self.faults.append(fault),
            call_deadline_s=call_deadline_s,
            metrics=shared,
        )

    @property
    def live(self) -> str:
        return self.table.live("numbers").manifest.version

    def refused(self, reason: str) -> float | None:
        labels = {"model": "numbers", "reason": reason}
        return self.metrics.get_sample_value("tollgate_model_versions_refused_total", labels)

    def value(self, metric: str) -> float:
        found = self.metrics.get_sample_value(metric)
        assert found is not None
        return found

    def publish(
        self,
        *,
        onnx_bytes: bytes | None = None,
        joblib_bytes: bytes | None = None,
        model: str = "numbers",
        change: Callable[[dict[str, object]], object] = lambda manifest: None,
        **changes: object,
    ) -> str:
        """Publish a copy of a model's first version with changes, and return its name."""
        [old] = self.store.list_versions(model)[:1]
        manifest = self.store.open_version(model, old, self.trusted)
        files = {name: self.store.read_file(manifest, name) for name in manifest.files}
        if onnx_bytes is not None:
            files["model.onnx"] = onnx_bytes
        if joblib_bytes is not None:
            files["model.joblib"] = joblib_bytes
        version = new_version_name(datetime.now(UTC))
        document = {**manifest.model_dump(mode="json"), "version": version, **changes}
        change(document)
        self.store.publish(Manifest.model_validate_json(orjson.dumps(document)), files, self.key)
        return version

    def padded_onnx(self, number: int, *, size: int = 8) -> bytes:
        """Return the model `numbers` with other bytes: it gains metadata that runtimes ignore."""
        [oldest] = self.store.list_versions("numbers")[:1]
        manifest = self.store.open_version("numbers", oldest, self.trusted)
        content = self.store.read_file(manifest, "model.onnx")
        return content + _doc_string(f"{number:0{size}d}".encode())

    def release(self, version: str, *, model: str = "numbers") -> int:
        digest = self.store.manifest_sha256(model, version)

        def decide(number: int, taken: Release | Withdrawal | None) -> Release:
            return Release(
                number=number,
                previous=number - 1,
                version=version,
                manifest_sha256=digest,
                action="release",
                canary=None,
                shadow=None,
                by="test",
                reason="",
                time=datetime(2026, 1, 1, tzinfo=UTC),
            )

        written = self.store.append_release(model, decide=decide)
        assert written is not None
        return written.number

    @staticmethod
    def new_keys(folder: Path) -> TrustedKeys:
        """Return the public half of a key that signed nothing."""
        create_signing_key(folder / "signing.pem", folder / "trusted")
        return TrustedKeys.load(folder / "trusted")

    def take_away(self) -> None:
        """Take the bucket down: every access fails."""
        self.folder.rename(self.folder.with_name("aside"))
        self.folder.symlink_to(self.folder)  # a symlink loop, which no system can read

    def bring_back(self) -> None:
        """Bring the bucket back up, unchanged."""
        self.folder.unlink()
        self.folder.with_name("aside").rename(self.folder)


def _doc_string(text: bytes) -> bytes:
    """Encode field 6 of an ONNX model as protobuf: tag, length, bytes."""
    length, rest = [], len(text)
    while True:
        rest, low = rest >> 7, rest & 0x7F
        length.append(low | (0x80 if rest else 0))
        if not rest:
            return bytes([6 << 3 | 2, *length]) + text
