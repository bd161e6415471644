"""Fixtures of the inference tests: trained models, neighbours over HTTP, and the app between."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from services.inference.app import Front, create_app
from services.inference.models import loader
from services.inference.settings import InferenceSettings
from tests.inference.neighbours import Neighbours, running
from tests.inference.samples import Store, train_samples

DEADLINE_S = 60
"""However busy the machine is, what has not come to hold by then never will."""


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the classifiers `numbers` and `mixed`, and the regression `price`."""
    return train_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="session")
async def running_neighbours() -> AsyncIterator[Neighbours]:
    async with running(Neighbours()) as started:
        yield started


@pytest.fixture
def neighbours(running_neighbours: Neighbours) -> Neighbours:
    """The neighbours, well-behaved again and with nothing remembered."""
    running_neighbours.reset()
    return running_neighbours


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
    """A client of the app, inside its lifespan and once it is ready."""
    front = create_app(settings)
    assert isinstance(front, Front)
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
    """A client of the one app of the run, whose neighbours are well-behaved again."""
    return running_app


@pytest.fixture
def account() -> str:
    """A caller nobody has seen before."""
    return str(uuid.uuid4())


@pytest.fixture
def bearer(neighbours: Neighbours, account: str) -> dict[str, str]:
    """Headers of that caller, who may predict."""
    return {"Authorization": f"Bearer {neighbours.token(account=account)}"}


@pytest.fixture
def fresh_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version may be called as soon as it is published."""
    monkeypatch.setattr(loader, "LISTING_HOLDS_S", 0.0)
    monkeypatch.setattr(loader, "LISTING_HOLDS_TIMES", 0.0)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def eventually(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds; fail when it takes too long."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.02)
