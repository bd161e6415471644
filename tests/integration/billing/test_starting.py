"""The service as a process: its settings, its migrations, its readiness."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr

from harness.clients import PLAIN
from harness.issuer import ISSUER, Headers, Issuer
from harness.plans import LOCAL_PLAN, LOCAL_PLAN_FILE
from harness.ports import free_port
from harness.usage_events import event, post_events
from services.billing.app import create_app
from services.billing.database import MIGRATIONS
from services.billing.models import Base
from services.billing.plans.schemas import PlanCreate
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.billing.conftest import browse


async def test_the_migrations_create_the_tables_of_the_code(database: Database) -> None:
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )

    assert differences == []


class TestReadiness:
    async def test_a_migrated_service_is_ready(self, client: AsyncClient) -> None:
        assert (await client.get("/readyz")).status_code == 200

    async def test_it_is_ready_only_once_migrated(
        self,
        database_kind: str,
        new_database_url: Callable[[str], str],
        issuer: Issuer,
        service: Headers,
        tmp_path: Path,
    ) -> None:
        url = new_database_url(database_kind)
        settings = BillingSettings(
            home=tmp_path,
            auth_url=ISSUER,
            database_url=SecretStr(url),
            default_plan=PlanCreate.model_validate(LOCAL_PLAN),
        )
        app = create_app(settings, keys=issuer)
        async with app.router.lifespan_context(app), browse(app) as client:
            before = await client.get("/readyz")
            await asyncio.to_thread(migrate, url, MIGRATIONS)
            body = orjson.dumps([event()])
            early = await post_events(client, service, body)
            after = await client.get("/readyz")
            taken = await post_events(client, service, body)

        assert before.status_code == 503
        assert set(before.json()["failing"]) == {"database", "default_plan"}
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert after.status_code == 200
        assert taken.json()["accepted"] == 1


@pytest.mark.any_database
class TestDocs:
    async def test_both_cloudevents_types_are_described(self, client: AsyncClient) -> None:
        schema = (await client.get("/openapi.json")).json()

        body = schema["paths"]["/events"]["post"]["requestBody"]
        assert set(body["content"]) == {
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
        }

    async def test_every_operation_is_documented(self, app: FastAPI) -> None:
        operations = [o for path in app.openapi()["paths"].values() for o in path.values()]

        assert all(len(operation.get("description", "")) > 10 for operation in operations[:-3])


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.billing", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestSettings:
    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("BILLING_PORT", "none"),
            ("BILLING_PORT", "70000"),
            ("AUTH_PORT", "0"),
            ("BILLING_AUTH_URL", "auth.example.com"),
            ("BILLING_DATABASE_URL", "postgresql://hunter2@host/db"),
            ("BILLING_DATABASE_URL", "hunter2"),
            ("BILLING_DEFAULT_PLAN", "{"),
            ("BILLING_DEFAULT_PLAN", "{}"),
            ("BILLING_DEFAULT_PLAN", "/no/such/file.json"),
            ("BILLING_SELLER", "Modelle GmbH"),
            ("BILLING_SELLER", '{"address": "Berlin"}'),
            ("BILLING_SELLER", '{"name": "Modelle GmbH", "registration_number": ""}'),
            ("BILLING_TAX_RULES", '[{"country": "DE", "rate": "much"}]'),
            ("BILLING_TAX_RULES", '[{"country": "Germany", "rate": "0.19"}]'),
            ("BILLING_TAX_RULES", '[{"country": "DE", "rate": "0.0000000001"}]'),
            ("BILLING_TAX_RULES", '[{"country": "DE", "rate": 19, "reverse_charge": true}]'),
            ("BILLING_DEFAULT_PLAN", orjson.dumps(LOCAL_PLAN | {"currency": "usd"}).decode()),
            ("BILLING_DEFAULT_PLAN", orjson.dumps(LOCAL_PLAN | {"monthly_fee": "1"}).decode()),
            (
                "BILLING_DEFAULT_PLAN",
                orjson.dumps(
                    LOCAL_PLAN | {"billing": "prepaid", "trial_credit": {"amount": "1", "days": 1}}
                ).decode(),
            ),
            ("BILLING_LOG_LEVEL", "LOUD"),
        ],
    )
    def test_an_invalid_value_stops_startup_with_one_line_that_names_the_variable(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        variable: str,
        value: str,
    ) -> None:
        monkeypatch.setenv(variable, value)

        with pytest.raises(SystemExit) as ended:
            BillingSettings.load()

        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.startswith(f"error: {variable}: ")
        assert said.count("\n") == 1
        assert "hunter2" not in said

    def test_the_local_defaults_follow_the_state_folder_and_the_ports(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
        monkeypatch.setenv("AUTH_PORT", "9001")

        settings = BillingSettings.load()

        assert settings.auth_url == "http://127.0.0.1:9001"
        database = settings.database_url.get_secret_value()
        assert database == f"sqlite+aiosqlite:///{tmp_path}/billing.db"
        assert settings.default_plan is None

    @pytest.mark.parametrize("value", [str(LOCAL_PLAN_FILE), LOCAL_PLAN_FILE.read_text()])
    def test_the_default_plan_is_json_or_a_json_file(
        self, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("BILLING_DEFAULT_PLAN", value)

        plan = BillingSettings.load().default_plan

        assert plan is not None
        assert (plan.billing, plan.currency, plan.rate_limit) == ("postpaid", "USD", None)
        assert all(tier.per_request and tier.per_row for tier in plan.prices[0].tiers)


def test_the_process_migrates_serves_and_stops(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "TOLLGATE_HOME": str(tmp_path / "home"),
        "BILLING_PORT": str(port),
        "BILLING_DEFAULT_PLAN": str(LOCAL_PLAN_FILE),
        "AUTH_PORT": str(free_port()),
    }

    assert run("migrate", **environment).returncode == 0
    assert run("migrate", **environment).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "services.billing"],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = _await(f"http://127.0.0.1:{port}/plans")
        taken = run(**environment)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)

    assert [each["name"] for each in answer.json()["plans"]] == ["Local"]
    assert "date" in answer.headers
    assert (taken.returncode, "BILLING_PORT" in taken.stderr) == (2, True)
    assert code == 0


@pytest.mark.costly
def test_unknown_arguments_are_refused_with_one_line() -> None:
    done = run("nonsense")

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def _await(url: str, **options: Any) -> httpx.Response:
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, trust_env=False, verify=PLAIN, **options)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
