"""Ada, Bob, and an organisation that Ada owns."""

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from tests.integration.auth.conftest import ADA, bearer
from tests.integration.auth.organisations.people import BOB, Person, sign_up
from tests.integration.auth.organisations.verifier import Verifier


@pytest.fixture
async def ada(client: AsyncClient) -> Person:
    return await sign_up(client, ADA)


@pytest.fixture
async def bob(client: AsyncClient) -> Person:
    return await sign_up(client, BOB)


@pytest.fixture
async def organisation(ada: Person) -> str:
    """The id of an organisation that Ada owns."""
    return await ada.create_organisation()


@pytest.fixture
async def verifier(app: FastAPI, client: AsyncClient, inference: tuple[str, str]) -> Verifier:
    form = {"grant_type": "client_credentials"}
    token = (await client.post("/token", data=form, auth=inference)).json()["access_token"]
    return Verifier(app, client, bearer(token))
