"""An administrator who is signed in to the console, and what happens at billing meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI, Request, Response
from httpx import AsyncClient
from sqlalchemy import update

from services.auth.models import User
from services.common.db.database import Database
from tests.integration.console.conftest import AUTH, PASSWORD, World
from tests.integration.console.hostile_models import HOSTILE, MODEL, hostile_inference
from tests.integration.console.visits import new_email, sign_in


@pytest.fixture(autouse=True)
def inference(world: World) -> FastAPI:
    """An inference service with a model whose texts contain markup."""
    app = hostile_inference()
    app.state.metrics = "tollgate_unknown 1\n"
    app.state.versions = [
        {"name": MODEL, "version": HOSTILE, "state": "READY", "reason": "", "live": True}
    ]

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"models": [MODEL]}

    @app.get("/v1/models/{model}")
    async def describe(model: str) -> Any:
        if model != MODEL:
            return Response(status_code=404)
        return {"name": MODEL, "version": HOSTILE, "release": 3, "metrics": {}, "deprecation": None}

    @app.post("/v2/repository/index")
    async def index(request: Request) -> list[dict[str, Any]]:
        versions: list[dict[str, Any]] = app.state.versions
        return versions

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(app.state.metrics, media_type="text/plain")

    world.services["inference"] = app
    return app


@pytest.fixture
async def administrator(
    world: World, browser: AsyncClient, running_auth: FastAPI
) -> AsyncIterator[AsyncClient]:
    """A browser in which an administrator is signed in."""
    email = new_email()
    await browser.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
    auth: Database = running_auth.state.database
    async with auth.transaction() as session:
        await session.execute(update(User).where(User.email == email).values(is_admin=True))
    await sign_in(browser, email=email)
    yield browser
    async with auth.transaction() as session:
        await session.execute(update(User).where(User.email == email).values(is_admin=False))


@pytest.fixture
async def buyer(world: World) -> str:
    """The account of a registered buyer."""
    async with world.browser() as other:
        body = {"email": new_email(), "password": PASSWORD}
        answer = await other.post(f"{AUTH}/register", json=body)
    account: str = answer.json()["id"]
    return account


@pytest.fixture
def database(running_billing: FastAPI) -> Database:
    """The database of billing."""
    database: Database = running_billing.state.database
    return database


@pytest.fixture
def losing_answers(world: World) -> None:
    """Let billing do what it is asked to, and lose its answers to what changes something."""
    inner = world.services["billing"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET" or scope["path"] in ("/plans/preview",):
            await inner(scope, receive, send)
            return

        async def swallow(message: Any) -> None:
            await asyncio.sleep(0)

        await inner(scope, receive, swallow)
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    world.services["billing"] = app  # type: ignore[assignment]


@pytest.fixture
def plan_name() -> str:
    """The name of a plan that does not exist yet."""
    return f"Plan {uuid4().hex[:8]}"
