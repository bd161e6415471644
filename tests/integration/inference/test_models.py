"""Valid releases go live; invalid ones are refused, and the live version keeps serving."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from registry.releases import ReleaseManager
from registry.store import ModelStore
from services.common.errors import Unavailable
from services.inference.models.table import ModelNotFound
from tests.integration.inference.samples import NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> Shelf:
    shelf = Shelf(samples, tmp_path)
    await shelf.watcher.poll()
    return shelf


async def test_every_released_model_is_served(shelf: Shelf) -> None:
    assert shelf.table.names() == ["mixed", "numbers", "price"]
    assert await shelf.watcher.check() is None


async def test_a_new_release_goes_live_at_the_next_poll(shelf: Shelf) -> None:
    version = shelf.publish()
    number = shelf.release(version)

    await shelf.watcher.poll()

    assert shelf.live == version
    assert shelf.metrics.get_sample_value(
        "tollgate_model_live_release", {"model": "numbers", "version": version}
    ) == float(number)


async def test_a_new_model_goes_live_at_the_next_poll(shelf: Shelf, samples: Store) -> None:
    shutil.move(shelf.folder / "price", shelf.folder.parent / "aside")
    shelf.start()
    await shelf.watcher.poll()

    shutil.move(shelf.folder.parent / "aside", shelf.folder / "price")
    await shelf.watcher.poll()

    assert shelf.table.names() == ["mixed", "numbers", "price"]


async def test_a_rollback_is_a_release_of_the_previous_version(shelf: Shelf) -> None:
    first = shelf.live
    shelf.release(shelf.publish())
    await shelf.watcher.poll()
    loaded_before = await shelf.loader.get("numbers", first)

    number = shelf.release(first)
    await shelf.watcher.poll()

    assert shelf.live == first
    assert shelf.table.live_number("numbers") == number
    assert await shelf.loader.get("numbers", None) is loaded_before


async def test_before_the_first_poll_a_missing_model_is_unavailable_not_unknown(
    shelf: Shelf,
) -> None:
    shelf.start()

    with pytest.raises(Unavailable):
        shelf.table.find("numbers")


async def test_an_empty_store_is_ready_and_serves_nothing(tmp_path: Path, shelf: Shelf) -> None:
    shelf.start(store=ModelStore(f"file://{tmp_path}/nothing-here"))

    await shelf.watcher.poll()

    assert await shelf.watcher.check() is None
    with pytest.raises(ModelNotFound):
        shelf.table.find("numbers")


class TestRefusal:
    async def _release_and_look(self, shelf: Shelf, version: str) -> None:
        before = shelf.live
        shelf.release(version)
        await shelf.watcher.poll()
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

        await shelf.watcher.poll()

        assert digest_taken_before > 0
        assert shelf.live == before
        assert shelf.refused("missing") == 1

    async def test_of_a_version_that_failed_its_gate(self, shelf: Shelf) -> None:
        await self._release_and_look(shelf, shelf.publish(gate="failed"))

        assert shelf.refused("gate") == 1

    async def test_of_a_signed_file_that_is_not_a_model(self, shelf: Shelf) -> None:
        await self._release_and_look(shelf, shelf.publish(onnx_bytes=b"not a model"))

        assert shelf.refused("runtime") == 1

    async def test_of_a_model_with_wrong_recorded_answers(self, shelf: Shelf) -> None:
        warm_up = {"rows": [NUMBERS_ROW], "predictions": [0], "probabilities": [[1.0, 0.0]]}

        await self._release_and_look(shelf, shelf.publish(warm_up=warm_up))

        assert shelf.refused("warm_up") == 1

    async def test_of_an_invalid_record_does_not_block_later_releases(self, shelf: Shelf) -> None:
        numbers = shelf.store.list_releases("numbers")
        (shelf.folder / f"numbers/releases/{numbers[-1] + 1:08d}.json").write_text("{rubbish")
        version = shelf.publish()
        shelf.release(version)

        await shelf.watcher.poll()

        assert shelf.refused("release") == 1
        assert shelf.live == version


async def test_records_far_beyond_the_sequence_are_ignored_and_counted_once(shelf: Shelf) -> None:
    (shelf.folder / "numbers/releases/99999999.json").write_text("{rubbish")
    shelf.start()
    await shelf.watcher.poll()
    version = shelf.publish()
    shelf.release(version)

    await shelf.watcher.poll()
    shelf.watcher._next_full_scan = 0.0
    await shelf.watcher.poll()

    assert shelf.live == version
    assert shelf.refused("sequence") == 1


class TestWithdrawal:
    def withdraw(self, shelf: Shelf) -> int:
        [number] = shelf.store.list_releases("numbers")
        release_manager = ReleaseManager(shelf.store, shelf.trusted, "test")
        return release_manager.roll_back("numbers", expected_release=number).live.number

    async def test_leaves_the_model_without_a_live_version(self, shelf: Shelf) -> None:
        version = shelf.live
        number = self.withdraw(shelf)

        await shelf.watcher.poll()

        with pytest.raises(ModelNotFound):
            shelf.table.find("numbers")
        assert shelf.table.live_number("numbers") == number
        labels = {"model": "numbers", "version": ""}
        assert shelf.metrics.get_sample_value("tollgate_model_live_release", labels) == number
        assert (await shelf.loader.get("numbers", version)).manifest.version == version

    async def test_survives_a_full_scan_and_a_restart_without_the_store(self, shelf: Shelf) -> None:
        self.withdraw(shelf)
        await shelf.watcher.poll()
        shelf.watcher._next_full_scan = 0.0
        await shelf.watcher.poll()
        assert "numbers" not in shelf.table.names()

        shelf.start()
        shelf.take_away()
        await shelf.watcher.poll()
        await shelf.watcher.start_from_cache()

        assert shelf.table.names() == ["mixed", "price"]

    async def test_ends_with_the_next_release(self, shelf: Shelf) -> None:
        version = shelf.live
        self.withdraw(shelf)
        await shelf.watcher.poll()
        number = shelf.release(version)

        await shelf.watcher.poll()

        assert shelf.live == version
        labels = {"model": "numbers", "version": ""}
        assert shelf.metrics.get_sample_value("tollgate_model_live_release", labels) is None
        assert shelf.table.live_number("numbers") == number


async def test_the_live_version_is_kept_when_it_has_a_high_release_number(shelf: Shelf) -> None:
    """The cached record for a start without the store is the only one in its folder."""
    before = shelf.live
    [kept] = (shelf.cache_folder / "records/numbers/releases").iterdir()
    record = json.loads(kept.read_text())
    kept.with_name("00012345.json").write_text(json.dumps(record | {"number": 12345}))
    kept.unlink()
    shelf.start()
    shelf.take_away()

    await shelf.watcher.start_from_cache()

    assert shelf.live == before


async def test_the_live_version_keeps_serving_without_the_store(shelf: Shelf) -> None:
    before = shelf.live
    shelf.take_away()

    await shelf.watcher.poll()

    assert shelf.live == before
    assert await shelf.watcher.check() is None


async def test_requests_in_progress_finish_on_their_version(shelf: Shelf) -> None:
    begun = await shelf.loader.get("numbers", None)
    shelf.release(shelf.publish())
    await shelf.watcher.poll()

    answer = await asyncio.to_thread(
        begun.runtime.run, begun.inputs.decode([NUMBERS_ROW]), probabilities=True
    )

    assert answer.predictions == [1]
    assert shelf.live != begun.manifest.version
