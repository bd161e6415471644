"""Versions are loaded on demand, and unloaded when there is no room."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.keys import TrustedKeys, create_signing_key, load_signing_key
from registry.records import StoreError
from registry.store import ModelStore
from services.common.errors import Unavailable
from services.inference.models import loader
from services.inference.models.table import LoadedModel, ModelNotFound
from tests.integration.inference.conftest import eventually
from tests.integration.inference.samples import NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf


class GatedStore(ModelStore):
    """A store whose files are read only once a test opens the gate."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = threading.Event()
        self.listings = 0
        self.waiting = 0

    def read_file(self, *args: object, **kwargs: object) -> bytes:
        self.waiting += 1
        self.gate.wait(timeout=30)
        return super().read_file(*args, **kwargs)  # type: ignore[arg-type]

    def list_versions(self, model: str) -> list[str]:
        self.listings += 1
        return super().list_versions(model)


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> AsyncIterator[Shelf]:
    shelf = Shelf(samples, tmp_path)
    await shelf.watcher.poll()
    yield shelf
    await shelf.loader.close()


def label(model: LoadedModel) -> object:
    arrays = model.inputs.decode([NUMBERS_ROW])
    return model.runtime.run(arrays).predictions[0]


class TestNamedVersions:
    @pytest.mark.parametrize("gate", ["passed", "forced"])
    async def test_a_version_that_may_be_served_can_be_called(
        self, shelf: Shelf, gate: str
    ) -> None:
        version, live = shelf.publish(gate=gate), shelf.live

        model = await shelf.loader.get("numbers", version)

        assert model.manifest.version == version
        assert label(model) == 1
        assert shelf.live == live

    async def test_a_version_that_failed_its_gate_cannot(self, shelf: Shelf) -> None:
        version = shelf.publish(gate="failed")

        with pytest.raises(ModelNotFound):
            await shelf.loader.get("numbers", version)

        assert shelf.refused("gate") is None

    async def test_a_model_without_any_release_can_be_called_by_version(self, shelf: Shelf) -> None:
        for path in (shelf.folder / "numbers/releases").iterdir():
            path.unlink()
        [version] = shelf.store.list_versions("numbers")
        shelf.start()
        await shelf.watcher.poll()

        model = await shelf.loader.get("numbers", version)

        assert label(model) == 1
        with pytest.raises(ModelNotFound):
            shelf.table.find("numbers")

    async def test_an_invalid_version_is_counted_once_and_not_retried_soon(
        self, shelf: Shelf
    ) -> None:
        version = shelf.publish(onnx_bytes=b"not a model")

        outcomes = await asyncio.gather(
            *(shelf.loader.get("numbers", version) for _ in range(5)), return_exceptions=True
        )
        with pytest.raises(ModelNotFound):
            await shelf.loader.get("numbers", version)

        assert all(isinstance(outcome, ModelNotFound) for outcome in outcomes)
        assert shelf.refused("runtime") == 1

    async def test_made_up_names_share_one_listing(self, samples: Store, tmp_path: Path) -> None:
        shelf = Shelf(samples, tmp_path)
        store = GatedStore(shelf.store_url)
        store.gate.set()
        shelf.start(store=store, listing_ttl_s=60.0)
        await shelf.watcher.poll()

        for number in range(100):
            with pytest.raises(ModelNotFound):
                await shelf.loader.get("numbers", f"20260101t000000z-{number:08x}")

        assert store.listings == 1


class TestConcurrency:
    async def test_many_requests_for_a_version_load_it_once(self, shelf: Shelf) -> None:
        version = shelf.publish()

        loaded = await asyncio.gather(*(shelf.loader.get("numbers", version) for _ in range(20)))

        assert len({id(model) for model in loaded}) == 1
        assert shelf.value("tollgate_model_loads_total") == 4

    async def test_a_few_versions_load_while_others_wait(self, shelf: Shelf) -> None:
        versions = [shelf.publish() for _ in range(5)]
        store = GatedStore(shelf.store_url)
        store.gate.set()
        shelf.start(store=store)
        await shelf.watcher.poll()
        store.gate.clear()
        store.waiting = 0

        loads = [asyncio.create_task(shelf.loader.get("numbers", v)) for v in versions]
        await eventually(lambda: store.waiting >= loader.LOADS_AT_ONCE)
        await asyncio.sleep(0.1)  # for one too many to begin
        waiting = store.waiting
        store.gate.set()
        models = await asyncio.gather(*loads)

        assert waiting == loader.LOADS_AT_ONCE
        assert [model.manifest.version for model in models] == versions

    async def test_a_request_waits_a_limited_time_and_the_load_continues(
        self, shelf: Shelf
    ) -> None:
        version = shelf.publish()
        store = GatedStore(shelf.store_url)
        shelf.start(store=store, load_waits_s=0.2)
        store.gate.set()
        await shelf.watcher.poll()
        store.gate.clear()

        with pytest.raises(Unavailable) as refusal:
            await shelf.loader.get("numbers", version)
        store.gate.set()
        await eventually(lambda: shelf.table.is_resident("numbers", version))
        model = await shelf.loader.get("numbers", version)

        assert refusal.value.headers["Retry-After"] == "5"
        assert model.manifest.version == version
        assert shelf.value("tollgate_model_loads_total") == 4


class TestMemory:
    async def test_the_least_recently_used_version_is_unloaded(self, shelf: Shelf) -> None:
        versions = [shelf.publish(onnx_bytes=shelf.padded_onnx(n, size=100_000)) for n in range(4)]
        bound = int(shelf.value("tollgate_model_loaded_bytes")) + 350_000
        shelf.start(models_max_bytes=bound)
        await shelf.watcher.poll()

        for version in versions[:3]:
            await shelf.loader.get("numbers", version)
        await shelf.loader.get("numbers", versions[0])
        await shelf.loader.get("numbers", versions[3])

        resident = [v for v in versions if shelf.table.is_resident("numbers", v)]
        assert resident == [versions[0], versions[2], versions[3]]
        assert shelf.table.is_resident("numbers", shelf.live)
        assert shelf.value("tollgate_model_loaded_bytes") <= bound

    async def test_unloaded_live_models_are_loaded_again_on_demand(self, shelf: Shelf) -> None:
        shelf.start(models_max_bytes=1)
        await shelf.watcher.poll()
        shelf.take_away()  # so they are loaded from the disk

        for name in ("numbers", "mixed", "price") * 2:
            model = await shelf.loader.get(name, None)
            assert model.manifest.model == name

        assert shelf.value("tollgate_model_loaded_versions") == 1

    async def test_the_previous_version_stays_in_memory_for_a_rollback(self, shelf: Shelf) -> None:
        first = shelf.live
        shelf.release(shelf.publish())
        await shelf.watcher.poll()

        assert shelf.table.is_resident("numbers", first)

    @pytest.mark.costly
    async def test_does_not_grow_with_swaps(self, shelf: Shelf) -> None:
        shelf.start(models_max_bytes=600_000)
        for number in range(30):
            version = shelf.publish(onnx_bytes=shelf.padded_onnx(number, size=250_000))
            shelf.release(version)
            await shelf.watcher.poll()
            model = await shelf.loader.get("numbers", None)
            assert model.manifest.version == version

        assert shelf.value("tollgate_model_loaded_bytes") <= 600_000


class TestStoreOutage:
    async def test_loaded_versions_are_served_and_others_are_unavailable(
        self, shelf: Shelf
    ) -> None:
        version = shelf.publish()
        shelf.take_away()

        assert label(await shelf.loader.get("numbers", None)) == 1
        with pytest.raises((Unavailable, ModelNotFound)):
            await shelf.loader.get("numbers", version)

    async def test_a_hanging_store_blocks_neither_serving_nor_the_next_poll(
        self, shelf: Shelf
    ) -> None:
        class Hanging(ModelStore):
            hangs = False
            released = threading.Event()

            def list_models(self) -> list[str]:
                if self.hangs:
                    self.released.wait(timeout=30)
                    raise StoreError("It hung up.")
                return super().list_models()

        store = Hanging(shelf.store_url)
        shelf.start(store=store, call_deadline_s=0.2)
        await eventually(shelf.watcher.poll)  # a busy machine may miss the deadline by itself
        store.hangs = True
        before = shelf.value("tollgate_model_store_failures_total")

        looks = [await shelf.watcher.poll() for _ in range(3)]
        served = label(await shelf.loader.get("numbers", None))
        failures = shelf.value("tollgate_model_store_failures_total") - before
        store.hangs = False
        await eventually(shelf.watcher.poll)
        store.released.set()

        assert looks == [False, False, False]
        assert served == 1
        assert failures == 3

    async def test_a_version_on_the_disk_can_be_called_while_the_store_hangs(
        self, shelf: Shelf
    ) -> None:
        released = threading.Event()

        class Hanging(ModelStore):
            def list_versions(self, model: str) -> list[str]:
                released.wait(timeout=30)
                raise StoreError("It hung up.")

        version = shelf.publish()
        await shelf.loader.get("numbers", version)
        shelf.start(store=Hanging(shelf.store_url))
        await shelf.watcher.poll()

        async with asyncio.timeout(20):
            model = await shelf.loader.get("numbers", version)
        released.set()

        assert model.manifest.version == version


class TestTrustedKeys:
    async def test_a_loaded_version_of_a_retired_key_cannot_be_called(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        folder = tmp_path / "trusted"
        old, new = tmp_path / "old.pem", tmp_path / "new.pem"
        create_signing_key(old, folder)
        [retired] = folder.iterdir()
        create_signing_key(new, folder)
        shutil.copytree(shelf.trusted_folder, folder, dirs_exist_ok=True)
        shelf.trusted = TrustedKeys.load(folder)
        versions = {}
        for key in (old, new):
            shelf.key = load_signing_key(key)
            versions[key] = shelf.publish()
        shelf.start()
        await shelf.watcher.poll()
        for version in versions.values():
            await shelf.loader.get("numbers", version)

        retired.unlink()
        await shelf.watcher.poll()

        with pytest.raises(ModelNotFound):
            await shelf.loader.get("numbers", versions[old])
        assert shelf.refused("signature") == 1
        assert shelf.table.is_resident("numbers", versions[new])
        assert label(await shelf.loader.get("numbers", None)) == 1

    async def test_a_release_goes_live_at_the_next_poll_once_its_key_is_trusted(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        folder, elsewhere = tmp_path / "trusted", tmp_path / "elsewhere"
        shutil.copytree(shelf.trusted_folder, folder)
        shelf.trusted = TrustedKeys.load(folder)
        shelf.key = create_signing_key(tmp_path / "new.pem", elsewhere)
        shelf.start()
        version = shelf.publish()
        shelf.release(version)
        await shelf.watcher.poll()
        before = shelf.live

        shutil.copytree(elsewhere, folder, dirs_exist_ok=True)
        await shelf.watcher.poll()

        assert before != version
        assert shelf.live == version
