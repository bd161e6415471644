"""What is released becomes live; what does not hold is refused, and the live version goes on."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import Unavailable
from services.common.model_store import (
    Manifest,
    ModelStore,
    Release,
    TrustedKeys,
    load_signing_key,
    new_version_name,
)
from services.inference.models.registry import ModelNotFound, Registry
from services.inference.models.watcher import Watcher
from tests.inference.samples import NUMBERS_ROW, Store


class Shelf:
    """A copy of the sample store that a test may spoil, and a watcher on it."""

    def __init__(self, samples: Store, folder: Path) -> None:
        source = Path(samples.url.removeprefix("file://"))
        shutil.copytree(source, folder)
        self.folder = folder
        self.key = load_signing_key(samples.trusted.parent / "signing.pem")
        self.trusted = TrustedKeys.load(samples.trusted)
        self.store = ModelStore(f"file://{folder}")
        self.registry = Registry()
        self.metrics = CollectorRegistry()
        self.watcher = Watcher(
            self.store, self.trusted, self.registry, poll_s=0.01, metrics=self.metrics
        )

    @property
    def live(self) -> str:
        return self.registry.get("numbers").manifest.version

    def refused(self, reason: str) -> float | None:
        labels = {"model": "numbers", "reason": reason}
        return self.metrics.get_sample_value("model_versions_refused_total", labels)

    def publish(self, *, onnx_bytes: bytes | None = None, **changes: object) -> str:
        """A new version of `numbers` like the live one, but for what is changed."""
        [old] = self.store.list_versions("numbers")[:1]
        manifest = self.store.open_version("numbers", old, self.trusted)
        files = {name: self.store.read_file(manifest, name) for name in manifest.files}
        if onnx_bytes is not None:
            files["model.onnx"] = onnx_bytes
        version = new_version_name(datetime.now(UTC))
        document = {**manifest.model_dump(mode="json"), "version": version, **changes}
        self.store.publish(Manifest.model_validate_json(orjson.dumps(document)), files, self.key)
        return version

    def release(self, version: str) -> int:
        digest = self.store.manifest_sha256("numbers", version)

        def decide(number: int, taken: Release | None) -> Release:
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
                time="2026-01-01T00:00:00Z",
            )

        written = self.store.append_release("numbers", decide=decide)
        assert written is not None
        return written.number


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> Shelf:
    shelf = Shelf(samples, tmp_path / "models")
    await shelf.watcher.look()
    return shelf


async def test_every_released_model_is_served(shelf: Shelf) -> None:
    assert shelf.registry.names() == ["mixed", "numbers", "price"]
    assert await shelf.watcher.check() is None


async def test_a_new_release_goes_live_at_the_next_look(shelf: Shelf) -> None:
    version = shelf.publish()
    number = shelf.release(version)

    await shelf.watcher.look()

    assert shelf.live == version
    assert shelf.metrics.get_sample_value(
        "model_live_release", {"model": "numbers", "version": version}
    ) == float(number)


async def test_a_new_model_goes_live_at_the_next_look(shelf: Shelf, samples: Store) -> None:
    shutil.move(shelf.folder / "price", shelf.folder.parent / "aside")
    registry = Registry()
    watcher = Watcher(shelf.store, shelf.trusted, registry, poll_s=1, metrics=CollectorRegistry())
    await watcher.look()

    shutil.move(shelf.folder.parent / "aside", shelf.folder / "price")
    await watcher.look()

    assert "price" in registry


async def test_a_rollback_is_a_release_of_the_version_before(shelf: Shelf) -> None:
    first = shelf.live
    shelf.release(shelf.publish())
    await shelf.watcher.look()
    loaded_before = shelf.registry.resident("numbers", first)

    number = shelf.release(first)
    await shelf.watcher.look()

    assert shelf.live == first
    assert shelf.registry.live_number("numbers") == number
    assert loaded_before is not None
    assert shelf.registry.get("numbers").runtime is loaded_before.runtime


async def test_before_the_first_look_a_missing_model_is_unavailable_not_unknown(
    shelf: Shelf,
) -> None:
    with pytest.raises(Unavailable):
        Registry().get("numbers")


async def test_an_empty_store_is_ready_and_serves_nothing(tmp_path: Path, shelf: Shelf) -> None:
    registry = Registry()
    empty = Watcher(
        ModelStore(f"file://{tmp_path}/nothing-here"),
        shelf.trusted,
        registry,
        poll_s=1,
        metrics=CollectorRegistry(),
    )

    await empty.look()

    assert await empty.check() is None
    with pytest.raises(ModelNotFound):
        registry.get("numbers")


class TestRefusal:
    async def _release_and_look(self, shelf: Shelf, version: str) -> None:
        before = shelf.live
        shelf.release(version)
        await shelf.watcher.look()
        assert shelf.live == before

    async def test_of_a_manifest_that_was_changed(self, shelf: Shelf) -> None:
        version = shelf.publish()
        path = shelf.folder / "numbers/versions" / version / "manifest.json"
        path.write_bytes(path.read_bytes() + b" ")

        await self._release_and_look(shelf, version)

        assert shelf.refused("signature") == 1

    async def test_of_a_model_file_with_one_bit_flipped(self, shelf: Shelf) -> None:
        version = shelf.publish()
        path = shelf.folder / "numbers/versions" / version / "model.onnx"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))

        await self._release_and_look(shelf, version)

        assert shelf.refused("digest") == 1

    async def test_of_a_truncated_model_file(self, shelf: Shelf) -> None:
        version = shelf.publish()
        path = shelf.folder / "numbers/versions" / version / "model.onnx"
        path.write_bytes(path.read_bytes()[:-10])

        await self._release_and_look(shelf, version)

        assert shelf.refused("digest") == 1

    async def test_of_a_version_without_its_signature(self, shelf: Shelf) -> None:
        version = shelf.publish()
        digest_taken_before = shelf.release(version)
        (shelf.folder / "numbers/versions" / version / "manifest.sig").unlink()
        before = shelf.live

        await shelf.watcher.look()

        assert digest_taken_before > 0
        assert shelf.live == before
        assert shelf.refused("missing") == 1

    async def test_of_a_version_that_failed_its_gate(self, shelf: Shelf) -> None:
        await self._release_and_look(shelf, shelf.publish(gate="failed"))

        assert shelf.refused("gate") == 1

    async def test_of_a_signed_file_that_is_no_model(self, shelf: Shelf) -> None:
        await self._release_and_look(shelf, shelf.publish(onnx_bytes=b"not a model"))

        assert shelf.refused("runtime") == 1

    async def test_of_a_model_that_does_not_answer_as_recorded(self, shelf: Shelf) -> None:
        warm_up = {"rows": [NUMBERS_ROW], "predictions": [0], "probabilities": [[1.0, 0.0]]}

        await self._release_and_look(shelf, shelf.publish(warm_up=warm_up))

        assert shelf.refused("warm_up") == 1

    async def test_of_rubbish_in_the_releases_does_not_stop_the_look_at_later_ones(
        self, shelf: Shelf
    ) -> None:
        numbers = shelf.store.list_releases("numbers")
        (shelf.folder / f"numbers/releases/{numbers[-1] + 1:08d}.json").write_text("{rubbish")
        version = shelf.publish()
        shelf.release(version)

        await shelf.watcher.look()

        assert shelf.refused("release") == 1
        assert shelf.live == version


async def test_the_live_version_goes_on_when_the_store_is_gone(shelf: Shelf) -> None:
    before = shelf.live
    shutil.rmtree(shelf.folder)
    shelf.folder.write_text("no folder any more")

    await shelf.watcher.look()

    assert shelf.live == before
    assert await shelf.watcher.check() is None


async def test_requests_in_flight_finish_on_the_version_they_began_with(shelf: Shelf) -> None:
    begun = shelf.registry.get("numbers")
    shelf.release(shelf.publish())
    await shelf.watcher.look()

    answer = await asyncio.to_thread(
        begun.runtime.run, begun.inputs.decode([NUMBERS_ROW]), probabilities=True
    )

    assert answer.predictions == [1]
    assert shelf.live != begun.manifest.version
