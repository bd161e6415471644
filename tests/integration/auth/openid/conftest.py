"""An app that people sign in to, and a company whose provider they can do it with."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.keys import KeyRing
from tests.integration.auth.conftest import Headers
from tests.integration.auth.openid.company import Company, new_key_ring, running_company
from tests.integration.auth.openid.signing_in import App, register_app


@pytest.fixture
async def weather(client: AsyncClient, as_ada: Headers, app: FastAPI) -> AsyncIterator[App]:
    """An app that Ada has registered, and her browser."""
    registered = await register_app(client, as_ada, app)
    async with registered.browser:
        yield registered


@pytest.fixture(scope="session")
def company_keys() -> KeyRing:
    return new_key_ring()


@pytest.fixture
async def company(company_keys: KeyRing) -> AsyncIterator[Company]:
    """Ada's company, whose provider is running."""
    async with running_company(company_keys) as running:
        yield running
