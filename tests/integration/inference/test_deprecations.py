"""The answers of a deprecated version say so, on every path; others do not."""

import json
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from harness.ports import free_port
from harness.waiting import eventually_async
from registry.deprecations import deprecate
from services.inference.settings import InferenceSettings
from tests.integration.inference.fast import V1, connected, one_row, post, serving_both, warm
from tests.integration.inference.grpc_client import GrpcClient, fp32
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf

SUNSET = datetime(2999, 1, 31, 12, tzinfo=UTC)
HEADER = "Thu, 31 Jan 2999 12:00:00 GMT"


@pytest.fixture
def shelf(samples: Store, tmp_path: Path) -> Shelf:
    return Shelf(samples, tmp_path)


@pytest.fixture
def own(
    shelf: Shelf, settings: InferenceSettings, tmp_path: Path, neighbours: Neighbours
) -> InferenceSettings:
    """Return settings of a process that serves the shelf, over gRPC too."""
    changes = {
        "model_store": shelf.store_url,
        "journal_dir": tmp_path / "journal",
        "cache_dir": tmp_path / "cache",
        "grpc_port": free_port(),
    }
    return settings.model_copy(update=changes)


def change(shelf: Shelf, sunset: datetime | None) -> None:
    [version] = shelf.store.list_versions("numbers")
    deprecate(shelf.store, "numbers", version=version, sunset=sunset, by="ada", reason="")


@pytest.mark.costly
async def test_answers_say_so_on_every_path_until_the_deprecation_is_undone(
    own: InferenceSettings, shelf: Shelf, authorization: str
) -> None:
    request = post(V1, one_row(), authorization)
    describe = f"GET /v1/models/numbers HTTP/1.1\r\nHost: x\r\n{authorization}\r\n\r\n".encode()
    token = authorization.rpartition(" ")[2]

    async with (
        serving_both(own) as served,
        connected(served.fast) as fast,
        connected(served.ordinary) as ordinary,
        grpc.aio.insecure_channel(f"127.0.0.1:{own.grpc_port}") as channel,
    ):
        await warm(fast, authorization)

        async def is_deprecated() -> bool:
            return "sunset" in (await ordinary.ask(request)).headers

        async def is_restored() -> bool:
            return not await is_deprecated()

        before = await fast.ask(request)
        change(shelf, SUNSET)
        await eventually_async(is_deprecated)
        served.by_app.clear()
        replies = [await fast.ask(request), await ordinary.ask(request)]
        answered_by_app = len(served.by_app)
        described = await fast.ask(describe)
        _, metadata = await GrpcClient(channel, token).infer(fp32(NUMBERS_ROW))
        change(shelf, None)
        await eventually_async(is_restored)
        after = await fast.ask(request)

    assert not {"deprecation", "sunset"} & (before.headers.keys() | after.headers.keys())
    assert replies[0].lasting == replies[1].lasting
    assert answered_by_app == 1
    for headers in (replies[0].headers, metadata):
        assert headers["sunset"] == HEADER
        since = int(headers["deprecation"].removeprefix("@"))
        assert abs(since - datetime.now(UTC).timestamp()) < 600
    assert json.loads(described.body)["deprecation"]["sunset"] == "2999-01-31T12:00:00Z"


async def test_a_version_loaded_later_is_deprecated_too(shelf: Shelf) -> None:
    change(shelf, SUNSET)
    await shelf.watcher.poll()

    model = await shelf.loader.get("numbers", None)
    shelf.table.drop("numbers", model.manifest.version)
    again = await shelf.loader.get("numbers", None)

    assert dict(model.headers)[b"sunset"] == HEADER.encode()
    assert again.headers == model.headers


async def test_a_malformed_record_is_counted_and_blocks_nothing(shelf: Shelf) -> None:
    folder = shelf.folder / "numbers/deprecations"
    folder.mkdir()
    (folder / "00000001.json").write_text("{rubbish")
    await shelf.watcher.poll()
    change(shelf, SUNSET)

    await shelf.watcher.poll()

    assert shelf.refused("deprecation") == 1
    assert (await shelf.loader.get("numbers", None)).headers
