"""Fixtures for the tests of the shared package."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from tests.integration.common.sample import sample_app


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
