"""A start with the store away begins from the disk, and nothing on the disk is trusted for it."""

import asyncio
import random
from pathlib import Path

import pytest

from services.common.errors import Unavailable
from services.common.model_store import StoreError, VersionRefused
from services.inference.models import watcher
from tests.inference.conftest import eventually
from tests.inference.samples import Store
from tests.inference.shelf import Shelf


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> Shelf:
    """One that has looked at its store once."""
    shelf = Shelf(samples, tmp_path)
    await shelf.watcher.look()
    return shelf


async def restart_without_store(shelf: Shelf) -> None:
    """What `run` does first, when the store fails."""
    shelf.take_away()
    shelf.start()
    assert not await shelf.watcher.look()
    await shelf.watcher.begin_from_cache()


def kept_files(shelf: Shelf) -> list[Path]:
    return [path for path in (shelf.cache_folder / "files").iterdir() if path.is_file()]


class TestStartWithTheStoreAway:
    async def test_serves_what_was_live_when_it_was_last_seen(self, shelf: Shelf) -> None:
        version = shelf.publish()
        number = shelf.release(version)
        await shelf.watcher.look()

        await restart_without_store(shelf)

        assert await shelf.watcher.check() is None
        assert shelf.registry.names() == ["mixed", "numbers", "price"]
        assert shelf.live == version
        assert shelf.registry.live_number("numbers") == number
        assert shelf.value("model_store_reachable") == 0

    async def test_cannot_say_of_other_models_that_there_are_none(self, shelf: Shelf) -> None:
        await restart_without_store(shelf)

        with pytest.raises(Unavailable):
            shelf.registry.find("elsewhere")

    async def test_takes_up_newer_releases_once_the_store_is_back(self, shelf: Shelf) -> None:
        version = shelf.publish()
        shelf.release(version)
        await restart_without_store(shelf)
        assert shelf.live != version

        shelf.bring_back()
        await shelf.watcher.look()

        assert shelf.live == version
        assert shelf.value("model_store_reachable") == 1

    async def test_is_not_ready_with_nothing_on_the_disk(
        self, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)

        await restart_without_store(shelf)
        unready = await shelf.watcher.check()
        shelf.bring_back()
        await shelf.watcher.look()

        assert unready is not None
        assert await shelf.watcher.check() is None

    async def test_goes_on_looking_and_is_ready_once_the_store_is_back(
        self, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        shelf.take_away()
        watching = asyncio.create_task(shelf.watcher.run())
        await eventually(lambda: shelf.value("model_store_failures_total") >= 3)
        unready = await shelf.watcher.check()

        shelf.bring_back()
        await eventually(lambda: shelf.registry.complete)
        watching.cancel()

        assert unready is not None
        assert shelf.registry.names() == ["mixed", "numbers", "price"]

    @pytest.mark.parametrize("failures", [1, 2, 5, 1000])
    def test_looks_again_within_seconds_however_long_the_store_was_away(
        self, failures: int
    ) -> None:
        pauses = {watcher.pause_s(2.0, failures) for _ in range(50)}

        assert 1.0 <= min(pauses) < max(pauses) <= watcher.LONGEST_PAUSE_S

    @pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
    async def test_serves_no_version_whose_signature_does_not_hold(
        self, shelf: Shelf, name: str
    ) -> None:
        [path] = (shelf.cache_folder / "records/numbers").rglob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

        await restart_without_store(shelf)

        assert shelf.registry.names() == ["mixed", "price"]

    async def test_serves_nothing_signed_by_a_key_no_longer_trusted(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        other = Shelf.new_keys(tmp_path / "other-keys")
        shelf.trusted = other

        await restart_without_store(shelf)

        assert shelf.registry.names() == []


class TestDisk:
    async def test_a_restart_fetches_no_file_again(self, shelf: Shelf) -> None:
        for path in shelf.folder.rglob("model.onnx"):
            path.unlink()

        shelf.start()
        await shelf.watcher.look()

        assert shelf.registry.names() == ["mixed", "numbers", "price"]

    async def test_damaged_files_are_fetched_again(self, shelf: Shelf) -> None:
        for path in kept_files(shelf):
            path.write_bytes(path.read_bytes()[:-1] + b"x")

        shelf.start()
        await shelf.watcher.look()

        assert shelf.registry.names() == ["mixed", "numbers", "price"]
        for manifest in (shelf.registry.live(name).manifest for name in shelf.registry.names()):
            assert shelf.cache.read_served(manifest)
        assert await restarted_alone(shelf) == ["mixed", "numbers", "price"]

    async def test_a_damaged_file_is_never_handed_out(self, shelf: Shelf) -> None:
        """500 truncations and flipped bits, the store away: not one is read."""
        manifest = shelf.registry.live("numbers").manifest
        path = shelf.cache_folder / "files" / manifest.files["model.onnx"].sha256
        good = path.read_bytes()
        shelf.take_away()

        for seed in range(500):
            path.write_bytes(damaged(good, seed))
            with pytest.raises(StoreError):
                shelf.cache.read_served(manifest)

        path.write_bytes(good)
        assert shelf.cache.read_served(manifest) == good

    async def test_a_damaged_object_is_never_taken_from_the_store(self, shelf: Shelf) -> None:
        """500 truncations and flipped bits of a released object: not one is kept or read."""
        version = shelf.publish()
        manifest = shelf.store.open_version("numbers", version, shelf.trusted)
        path = shelf.folder / "numbers/versions" / version / "model.onnx"
        good, kept = path.read_bytes(), kept_files(shelf)

        for seed in range(500):
            path.write_bytes(damaged(good, seed))
            with pytest.raises(VersionRefused):
                shelf.cache.read_served(manifest)

        assert kept_files(shelf) == kept

    async def test_is_bounded_but_never_loses_what_is_live(
        self, shelf: Shelf, fresh_listings: None
    ) -> None:
        shelf.start(cache_max_bytes=1)
        await shelf.watcher.look()
        for number in range(5):
            await shelf.loader.get("numbers", shelf.publish(onnx_bytes=shelf.padded_onnx(number)))

        live = [shelf.registry.live(name).manifest for name in shelf.registry.names()]
        wanted = {manifest.files["model.onnx"].sha256 for manifest in live}
        assert {path.name for path in kept_files(shelf)} == wanted
        assert await restarted_alone(shelf) == ["mixed", "numbers", "price"]

    async def test_that_cannot_keep_a_new_release_keeps_the_one_before(self, shelf: Shelf) -> None:
        before = shelf.live
        version = shelf.publish()
        number = shelf.release(version)
        # Nothing can be written under its name, as on a full disk.
        (shelf.cache_folder / f"records/numbers/releases/{number:08d}.json").mkdir()

        await shelf.watcher.look()
        now = shelf.live

        assert now == version
        assert "numbers" in await restarted_alone(shelf)
        assert shelf.live == before

    async def test_that_cannot_be_written_costs_fetches_not_answers(
        self, samples: Store, tmp_path: Path
    ) -> None:
        shelf = Shelf(samples, tmp_path)
        shelf.cache_folder.write_text("no folder")

        await shelf.watcher.look()

        assert shelf.registry.names() == ["mixed", "numbers", "price"]
        assert await shelf.watcher.check() is None


def damaged(content: bytes, seed: int) -> bytes:
    """Truncated, or with one bit flipped."""
    chance = random.Random(seed)
    at = chance.randrange(len(content))
    if seed % 2:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


async def restarted_alone(shelf: Shelf) -> list[str]:
    """What a restart without a store serves."""
    await restart_without_store(shelf)
    return shelf.registry.names()
