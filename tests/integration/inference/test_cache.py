"""Without the store, a process starts from its disk cache, which is verified like the store."""

import asyncio
import random
from pathlib import Path

import pytest

from registry.records import StoreError, VersionRefused
from services.common.errors import Unavailable
from tests.integration.inference.conftest import eventually
from tests.integration.inference.samples import Store
from tests.integration.inference.shelf import Shelf
from tests.integration.inference.test_deprecations import HEADER, SUNSET, change

SERVED = ("model.onnx", "explainer.npz")


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> Shelf:
    """Return a shelf whose watcher has polled once."""
    shelf = Shelf(samples, tmp_path)
    await shelf.watcher.poll()
    return shelf


async def restart_without_store(shelf: Shelf) -> None:
    """Do what `run` does first if the store fails."""
    shelf.take_away()
    shelf.start()
    assert not await shelf.watcher.poll()
    await shelf.watcher.start_from_cache()


def kept_files(shelf: Shelf) -> list[Path]:
    return [path for path in (shelf.cache_folder / "files").iterdir() if path.is_file()]


class TestStartWithoutTheStore:
    async def test_serves_the_last_known_live_version(self, shelf: Shelf) -> None:
        version = shelf.publish()
        number = shelf.release(version)
        await shelf.watcher.poll()

        await restart_without_store(shelf)

        assert await shelf.watcher.check() is None
        assert shelf.table.names() == ["mixed", "numbers", "price"]
        assert shelf.live == version
        assert shelf.table.live_number("numbers") == number
        assert shelf.value("tollgate_model_store_reachable") == 0

    async def test_still_says_which_versions_are_deprecated(self, shelf: Shelf) -> None:
        change(shelf, SUNSET)
        await shelf.watcher.poll()

        await restart_without_store(shelf)

        model = await shelf.loader.get("numbers", None)
        assert dict(model.headers)[b"sunset"] == HEADER.encode()

    async def test_does_not_report_other_models_as_missing(self, shelf: Shelf) -> None:
        await restart_without_store(shelf)

        with pytest.raises(Unavailable):
            shelf.table.find("elsewhere")

    async def test_activates_newer_releases_once_the_store_is_back(self, shelf: Shelf) -> None:
        version = shelf.publish()
        shelf.release(version)
        await restart_without_store(shelf)
        assert shelf.live != version

        shelf.bring_back()
        await shelf.watcher.poll()

        assert shelf.live == version
        assert shelf.value("tollgate_model_store_reachable") == 1

    async def test_is_not_ready_with_an_empty_cache(self, samples: Store, tmp_path: Path) -> None:
        shelf = Shelf(samples, tmp_path)

        await restart_without_store(shelf)
        unready = await shelf.watcher.check()
        shelf.bring_back()
        await shelf.watcher.poll()

        assert unready is not None
        assert await shelf.watcher.check() is None

    async def test_keeps_polling_and_is_ready_once_the_store_is_back(
        self, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        shelf.take_away()
        watching = asyncio.create_task(shelf.watcher.run())
        await eventually(lambda: shelf.value("tollgate_model_store_failures_total") >= 3)
        unready = await shelf.watcher.check()

        shelf.bring_back()
        await eventually(lambda: shelf.table.complete)
        watching.cancel()

        assert unready is not None
        assert shelf.table.names() == ["mixed", "numbers", "price"]

    @pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
    async def test_serves_no_version_with_an_invalid_signature(
        self, shelf: Shelf, name: str
    ) -> None:
        [path] = (shelf.cache_folder / "records/numbers").rglob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

        await restart_without_store(shelf)

        assert shelf.table.names() == ["mixed", "price"]

    async def test_serves_nothing_signed_by_a_key_no_longer_trusted(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        other = Shelf.new_keys(tmp_path / "other-keys")
        shelf.trusted = other

        await restart_without_store(shelf)

        assert shelf.table.names() == []


class TestDisk:
    async def test_a_restart_fetches_no_file_again(self, shelf: Shelf) -> None:
        for name in SERVED:
            for path in shelf.folder.rglob(name):
                path.unlink()

        shelf.start()
        await shelf.watcher.poll()

        assert shelf.table.names() == ["mixed", "numbers", "price"]

    async def test_damaged_files_are_fetched_again(self, shelf: Shelf) -> None:
        for path in kept_files(shelf):
            path.write_bytes(path.read_bytes()[:-1] + b"x")

        shelf.start()
        await shelf.watcher.poll()

        assert shelf.table.names() == ["mixed", "numbers", "price"]
        for manifest in (shelf.table.live(name).manifest for name in shelf.table.names()):
            assert shelf.cache.read_served(manifest)
        assert await restarted_alone(shelf) == ["mixed", "numbers", "price"]

    async def test_a_damaged_file_is_never_loaded(self, shelf: Shelf) -> None:
        """Try 500 truncations and flipped bits without the store: none is accepted."""
        manifest = shelf.table.live("numbers").manifest
        path = shelf.cache_folder / "files" / manifest.files["model.onnx"].sha256
        good = path.read_bytes()
        shelf.take_away()

        for seed in range(500):
            path.write_bytes(damaged(good, seed))
            with pytest.raises(StoreError):
                shelf.cache.read_served(manifest)

        path.write_bytes(good)
        assert shelf.cache.read_served(manifest) == good

    async def test_a_damaged_object_in_the_store_is_never_accepted(self, shelf: Shelf) -> None:
        """Try 500 truncations and flipped bits of a released object: none is cached or accepted."""
        version = shelf.publish()
        manifest = shelf.store.open_version("numbers", version, shelf.trusted)
        path = shelf.folder / "numbers/versions" / version / "model.onnx"
        good, kept = path.read_bytes(), kept_files(shelf)

        for seed in range(500):
            path.write_bytes(damaged(good, seed))
            with pytest.raises(VersionRefused):
                shelf.cache.read_served(manifest)

        assert kept_files(shelf) == kept

    @pytest.mark.costly
    async def test_is_bounded_but_never_evicts_live_versions(self, shelf: Shelf) -> None:
        shelf.start(cache_max_bytes=1)
        await shelf.watcher.poll()
        for number in range(5):
            await shelf.loader.get("numbers", shelf.publish(onnx_bytes=shelf.padded_onnx(number)))

        live = [shelf.table.live(name).manifest for name in shelf.table.names()]
        wanted = {manifest.files[name].sha256 for manifest in live for name in SERVED}
        assert {path.name for path in kept_files(shelf)} == wanted
        assert await restarted_alone(shelf) == ["mixed", "numbers", "price"]

    async def test_keeps_the_previous_release_if_a_write_fails(self, shelf: Shelf) -> None:
        before = shelf.live
        version = shelf.publish()
        number = shelf.release(version)
        # A folder of that name makes the write fail, as on a full disk.
        (shelf.cache_folder / f"records/numbers/releases/{number:08d}.json").mkdir()

        await shelf.watcher.poll()
        now = shelf.live

        assert now == version
        assert "numbers" in await restarted_alone(shelf)
        assert shelf.live == before

    async def test_causes_no_errors_if_it_cannot_be_written(
        self, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        shelf.cache_folder.write_text("no folder")

        await shelf.watcher.poll()

        assert shelf.table.names() == ["mixed", "numbers", "price"]
        assert await shelf.watcher.check() is None


def damaged(content: bytes, seed: int) -> bytes:
    """Return the content truncated, or with one bit flipped."""
    chance = random.Random(seed)
    at = chance.randrange(len(content))
    if seed % 2:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


async def restarted_alone(shelf: Shelf) -> list[str]:
    """Return the version that a restart without the store serves."""
    await restart_without_store(shelf)
    return shelf.table.names()
