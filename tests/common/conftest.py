"""Fixtures for the tests of the shared package."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from tests.common.sample import sample_app
from tests.common.worlds import World, new_world


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> World:
    """An empty store; tests run once per kind."""
    return new_world(tmp_path, store_url)


@pytest.fixture
def folder_world(tmp_path: Path) -> World:
    """An empty store in a folder, for tests of folders only."""
    return new_world(tmp_path, f"file://{tmp_path}/models")


@pytest.fixture
def bucket_world(tmp_path: Path, bucket_url: str) -> World:
    """An empty store in a bucket, for tests of buckets only."""
    return new_world(tmp_path, f"{bucket_url}/models")


@pytest.fixture
async def app() -> AsyncIterator[FastAPI]:
    """The sample service, started."""
    app = sample_app()
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of the sample service, which gets a 500 for a bug."""
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://sample.test") as client:
        yield client
