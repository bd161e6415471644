"""The billing app on a migrated database of either kind, emptied between tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from harness.databases import empty_tables
from harness.issuer import ISSUER, Headers, Issuer
from harness.plans import LOCAL_PLAN
from harness.usage_events import ADA, BOB, Json, event
from services.billing.app import create_app
from services.billing.archives import service as archiving
from services.billing.archives.reading import Archives
from services.billing.database import MIGRATIONS
from services.billing.ledger.reservations import SWEEP_EVERY_S
from services.billing.models import Base
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import store_plan
from services.billing.settings import BillingSettings
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.telemetry.tracing import Tracing
from tests.integration.billing.money import credit, store_prepaid
from tests.integration.billing.months import DURING, close, deliver, use, use_prepaid

SEPTEMBER = datetime(2026, 9, 20, 12, 30, tzinfo=UTC)
PATIENT_S = 60
"""The deadline of the database: on a busy machine, a crowd of requests takes long."""

OpenApp = Callable[..., AbstractAsyncContextManager[FastAPI]]


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
async def database_url(database_kind: str, new_database_url: Callable[[str], str]) -> str:
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    return url


@pytest.fixture(scope="session")
def open_app(
    database_url: str, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> OpenApp:
    """`async with open_app(default_plan=None) as app` runs the app with these settings."""
    home = tmp_path_factory.mktemp("billing")

    @asynccontextmanager
    async def open_(
        *,
        tracing: Tracing | None = None,
        sweep_every_s: float = SWEEP_EVERY_S,
        recall_every_s: float = 3600,
        **settings: Any,
    ) -> AsyncIterator[FastAPI]:
        given: dict[str, Any] = {
            "home": home,
            "auth_url": ISSUER,
            "database_url": SecretStr(database_url),
            "default_plan": PlanCreate.model_validate(LOCAL_PLAN),
        }
        app = create_app(
            BillingSettings(**(given | settings)),
            keys=issuer,
            tracing=tracing,
            database_deadline_s=PATIENT_S,
            sweep_every_s=sweep_every_s,
            recall_every_s=recall_every_s,
        )
        async with app.router.lifespan_context(app):
            yield app

    return open_


@pytest.fixture(scope="session")
async def running_app(open_app: OpenApp) -> AsyncIterator[FastAPI]:
    """The app for all tests. It does not sweep by itself, because tests set the clock."""
    async with open_app(sweep_every_s=3600) as app:
        yield app


@pytest.fixture
async def app(running_app: FastAPI) -> FastAPI:
    """The running app, on tables that contain only the default plan."""
    database: Database = running_app.state.database
    await empty_tables(database, Base.metadata)
    async with database.transaction() as session:
        await store_plan(session, plan=PlanCreate.model_validate(LOCAL_PLAN), now=datetime.now(UTC))
    return running_app


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with browse(app) as client:
        yield client


def browse(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://billing.test")


@pytest.fixture
def service(issuer: Issuer) -> Headers:
    """The headers of the inference service's requests."""
    return issuer.headers("billing:write", account="inference")


@pytest.fixture
def ada(issuer: Issuer) -> Headers:
    """The headers of a user's requests."""
    return issuer.headers("predict", "usage:read", account=ADA)


@pytest.fixture
def admin(issuer: Issuer) -> Headers:
    """The headers of an administrator's requests."""
    account = "0198a000-0000-7000-8000-0000000000ad"
    return issuer.headers("predict", "usage:read", "admin", account=account)


@pytest.fixture
async def prepaid(database: Database) -> AsyncIterator[Database]:
    """A database where Ada has 100 × 10⁻⁹ and pays 10⁻⁹ a row; at the end the books agree."""
    await store_prepaid(database)
    await credit(database, 100)
    yield database
    assert await verify(database) == []


@pytest.fixture
def archives(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Archives:
    """The archives of the app; files, pages and deletions are small."""
    found: Archives = app.state.archives
    monkeypatch.setattr(archiving, "PART_EVENTS", 4)
    monkeypatch.setattr(archiving, "PAGE_EVENTS", 2)
    monkeypatch.setattr(archiving, "DELETED_AT_ONCE", 2)
    return found


@pytest.fixture
async def october(database: Database, archives: Archives) -> list[Json]:
    """October, closed: prepaid and postpaid usage of two accounts, tags, and a late event."""
    await use(database, 7, time=SEPTEMBER, now=SEPTEMBER)
    await close(database, "2026-09")
    good = event(rows=2, time=DURING + timedelta(minutes=20))
    good["data"] |= {"version": "20261001t000000z-ffffffff", "client_id": "c"}
    good["data"]["input_sha256"] = "0" * 64
    tagged = event(rows=4, time=DURING + timedelta(minutes=50))
    tagged["data"] |= {"api_key": "k", "tags": {"team": "a"}}
    events = [
        *(event(rows=n, time=DURING + timedelta(seconds=n)) for n in range(1, 6)),
        event(rows=9, account=BOB, time=DURING + timedelta(minutes=20)),
        good,
        tagged,
        event(rows=5, time=SEPTEMBER + timedelta(minutes=10)),  # late
        event(rows=6, account=BOB, time=DURING - timedelta(days=1), sequence=1),
    ]
    await deliver(database, events, now=DURING + timedelta(hours=1))
    await use_prepaid(database)
    await close(database)
    return events
