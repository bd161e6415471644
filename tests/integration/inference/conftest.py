"""Fixtures of the inference tests: trained models, auth and billing over HTTP, and the app."""

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from pydantic import SecretStr

from harness.ports import free_port
from harness.waiting import eventually_async
from services.common.http.client import http_client
from services.inference.api.front import InferenceApp
from services.inference.app import create_app
from services.inference.metering.billing_client import BillingClient
from services.inference.settings import InferenceSettings
from tests.conftest import Once
from tests.integration.inference.fast import Served, serving_both
from tests.integration.inference.grpc_client import GrpcClient
from tests.integration.inference.neighbours import Neighbours, running
from tests.integration.inference.samples import Store, store_in, train_samples
from tests.integration.inference.shelf import Shelf

eventually = eventually_async
"""The servers that these tests wait for run on the same event loop."""


@pytest.fixture(scope="session")
def samples(once: Once, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with the classifiers `numbers` and `mixed`, and the regression `price`."""
    trained = once("samples", train_samples)
    return store_in(shutil.copytree(trained, tmp_path_factory.mktemp("own") / "samples"))


@pytest.fixture(scope="session")
async def running_neighbours() -> AsyncIterator[Neighbours]:
    async with running(Neighbours()) as started:
        yield started


@pytest.fixture
def neighbours(running_neighbours: Neighbours) -> Neighbours:
    """Return auth and billing in their initial state."""
    running_neighbours.reset()
    return running_neighbours


@pytest.fixture
async def billing(neighbours: Neighbours) -> AsyncIterator[BillingClient]:
    async with http_client() as http:
        yield BillingClient(
            http,
            billing_url=neighbours.url,
            auth_url=neighbours.url,
            client_id="inference",
            client_secret=SecretStr("secret"),
        )


@pytest.fixture(scope="session")
def settings(
    samples: Store, running_neighbours: Neighbours, tmp_path_factory: pytest.TempPathFactory
) -> InferenceSettings:
    return InferenceSettings(
        auth_url=running_neighbours.url,
        billing_url=running_neighbours.url,
        client_id="inference",
        client_secret="secret",
        model_store=samples.url,
        trusted_keys=samples.trusted,
        cache_dir=tmp_path_factory.mktemp("cache"),
        journal_dir=tmp_path_factory.mktemp("journal"),
        model_poll_seconds=0.05,
    )


@asynccontextmanager
async def serving(settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    """Run the app, and yield a client once it is ready."""
    front = create_app(settings)
    assert isinstance(front, InferenceApp)
    async with front.app.router.lifespan_context(front.app):
        transport = httpx.ASGITransport(app=front)
        async with httpx.AsyncClient(transport=transport, base_url="http://inference") as client:
            await eventually(lambda: _is_ready(client))
            yield client


@pytest.fixture(scope="session")
async def running_app(settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as started:
        yield started


@pytest.fixture
def client(running_app: httpx.AsyncClient, neighbours: Neighbours) -> httpx.AsyncClient:
    """Return a client of the shared app, with auth and billing in their initial state."""
    return running_app


@pytest.fixture
def account() -> str:
    """Return a new account."""
    return str(uuid.uuid4())


@pytest.fixture
def bearer(neighbours: Neighbours, account: str) -> dict[str, str]:
    """Return headers with a token of the account that may predict."""
    return {"Authorization": f"Bearer {neighbours.token(account=account)}"}


@asynccontextmanager
async def serving_shelf(
    shelf: Shelf, settings: InferenceSettings, version: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Release a version of `numbers`, and run an app of its own that serves it."""
    shelf.release(version)
    own = shelf.folder.parent
    changes = {
        "model_store": shelf.store_url,
        "cache_dir": own / "own-cache",
        "journal_dir": own / "journal",
    }
    async with serving(settings.model_copy(update=changes)) as client:
        yield client


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


@pytest.fixture(scope="session")
def grpc_settings(
    settings: InferenceSettings, tmp_path_factory: pytest.TempPathFactory
) -> InferenceSettings:
    changes = {
        "grpc_port": free_port(),
        "journal_dir": tmp_path_factory.mktemp("grpc"),
        "max_body_bytes": 200_000,
    }
    return settings.model_copy(update=changes)


@pytest.fixture(scope="session")
async def http_and_grpc(grpc_settings: InferenceSettings) -> AsyncIterator[httpx.AsyncClient]:
    """Yield an HTTP client of an app that also serves gRPC."""
    async with serving(grpc_settings) as started:
        yield started


@pytest.fixture
async def anonymous(
    http_and_grpc: httpx.AsyncClient, grpc_settings: InferenceSettings, neighbours: Neighbours
) -> AsyncIterator[GrpcClient]:
    """Yield a gRPC client without a token."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_settings.grpc_port}") as channel:
        yield GrpcClient(channel)


@pytest.fixture
def caller(anonymous: GrpcClient, neighbours: Neighbours, account: str) -> GrpcClient:
    """Return a gRPC client with a token of the account that may predict."""
    return GrpcClient(anonymous.channel, neighbours.token(account=account))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "feedback"


@pytest.fixture
def keeping(settings: InferenceSettings, store: Path) -> InferenceSettings:
    """Return settings of a process that stores labels with their rows."""
    changes = {"feedback_store": f"file://{store}", "feedback_rows": True}
    return settings.model_copy(update=changes)


@pytest.fixture(scope="session")
async def shared_both(
    settings: InferenceSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    changes = {"journal_dir": tmp_path_factory.mktemp("journal")}
    async with serving_both(settings.model_copy(update=changes)) as served:
        yield served


@pytest.fixture
def served(shared_both: Served, neighbours: Neighbours) -> Served:
    """Return the shared app, with auth and billing in their initial state."""
    shared_both.by_app.clear()
    return shared_both


@pytest.fixture
def authorization(neighbours: Neighbours, account: str) -> str:
    return f"Authorization: Bearer {neighbours.token(account=account)}"


@pytest.fixture
async def synced(
    settings: InferenceSettings, tmp_path: Path, neighbours: Neighbours
) -> AsyncIterator[Served]:
    """Yield an app whose events are durable only when they are synced to the disk."""
    changes = {"journal_dir": tmp_path / "journal", "journal_sync": "disk"}
    async with serving_both(settings.model_copy(update=changes)) as served:
        yield served
