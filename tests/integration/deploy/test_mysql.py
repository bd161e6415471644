"""The chart's own MySQL scripts on a real server: permissions, and the restore drill."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from harness.issuer import ISSUER, Issuer
from harness.plans import LOCAL_PLAN
from harness.usage_events import deliver, event
from services.billing.app import create_app
from services.billing.plans.schemas import PlanCreate
from services.billing.settings import BillingSettings
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.deploy.chart import ROOT, render
from tests.integration.deploy.mysql_server import PASSWORDS, SCRIPTS, ChartServer, new_server

DATABASES = ("tollgate_auth", "tollgate_billing")


def run_script(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPTS / name)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def migrate(server: ChartServer) -> None:
    """Migrate as the chart's Job does, each service as its own user."""
    for service in ("auth", "billing"):
        subprocess.run(
            [sys.executable, "-m", f"services.{service}", "migrate"],
            cwd=ROOT,
            env=os.environ
            | {f"{service.upper()}_DATABASE_URL": server.url(service)}
            | {"AUTH_ADMIN_EMAIL": "admin@tollgate.example", "AUTH_ADMIN_PASSWORD": "a long one"}
            | {"INFERENCE_CLIENT_ID": "inference", "INFERENCE_CLIENT_SECRET": "s" * 32},
            check=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[ChartServer]:
    """A server that the chart's script started, migrated."""
    with new_server() as chart_server, chart_server.running():
        # MariaDB's own user, which needs no password.
        chart_server.as_root("DROP USER IF EXISTS root@'127.0.0.1'", "FLUSH PRIVILEGES")
        migrate(chart_server)
        yield chart_server


async def bill(server: ChartServer, home: Path, *, events: int) -> None:
    """Have billing charge that many events to an account."""
    settings = BillingSettings(
        home=home,
        auth_url=ISSUER,
        database_url=SecretStr(server.url("billing")),
        default_plan=PlanCreate.model_validate(LOCAL_PLAN),
    )
    issuer = Issuer()
    app = create_app(settings, keys=issuer)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app=app), base_url="http://billing.test") as client,
    ):
        headers = issuer.headers("billing:write", account="inference")
        batch = [event(sequence=number) for number in range(1, events + 1)]
        assert (await deliver(client, headers, batch))["accepted"] == events


def checksums(server: ChartServer) -> dict[str, object]:
    """Return the server's checksum and row count of every table of both databases."""
    found: dict[str, object] = {}
    for database in DATABASES:
        for (table,) in server.as_root(f"SHOW TABLES FROM {database}"):
            name = f"{database}.{table}"
            [(_, checksum)] = server.as_root(f"CHECKSUM TABLE {name}")
            found[name] = (checksum, server.as_root(f"SELECT COUNT(*) FROM {name}")[0][0])
    return found


def run_on_backups(name: str, server: ChartServer, folder: Path, **more: str) -> str:
    """Run a backup script with the environment of its CronJob; return its output."""
    result = run_script(
        name,
        MYSQL_HOST="127.0.0.1",
        MYSQL_PORT=str(server.port),
        MYSQL_ROOT_PASSWORD=PASSWORDS["root"],
        BACKUP_PASSWORD=PASSWORDS["backup"],
        BACKUP_DIR=str(folder),
        BACKUP_KEEP_DAYS="14",
        **more,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def failing_backup(server: ChartServer, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_script(
        "backup.sh",
        MYSQL_HOST="127.0.0.1",
        MYSQL_PORT=str(server.port),
        BACKUP_PASSWORD="wrong",
        BACKUP_DIR=str(folder),
        BACKUP_KEEP_DAYS="14",
    )


class TestUsers:
    @pytest.mark.costly
    @pytest.mark.parametrize(
        ("user", "statement"),
        [
            ("auth", "SELECT * FROM tollgate_billing.plans"),
            ("billing", "SELECT * FROM tollgate_auth.users"),
            ("billing", "CREATE USER mallory@'%'"),
            ("billing", "GRANT ALL ON tollgate_billing.* TO backup@'%'"),
            ("backup", "DELETE FROM tollgate_billing.plans"),
            ("backup", "SELECT * FROM mysql.user"),
        ],
    )
    def test_a_user_has_no_more_rights_than_it_needs(
        self, server: ChartServer, user: str, statement: str
    ) -> None:
        with (
            pymysql.connect(
                host="127.0.0.1", port=server.port, user=user, password=PASSWORDS[user]
            ) as link,
            link.cursor() as cursor,
            pytest.raises(pymysql.MySQLError) as refused,
        ):
            cursor.execute(statement)

        assert refused.value.args[0] in (1044, 1045, 1142, 1227, 1410)


class TestRestoreDrill:
    @pytest.mark.costly
    async def test_a_backup_restores_every_charge_after_the_loss_of_all_data(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        await bill(server, tmp_path, events=500)
        before = checksums(server)
        started = time.monotonic()
        backup = await asyncio.to_thread(run_on_backups, "backup.sh", server, tmp_path)
        saved = time.monotonic()

        server.as_root(*(f"DROP DATABASE {name}" for name in DATABASES))
        printed = await asyncio.to_thread(run_on_backups, "restore.sh", server, tmp_path)
        restored = time.monotonic()

        assert checksums(server) == before
        assert before["tollgate_billing.usage_events"][1] >= 500  # type: ignore[index]
        assert printed == f"restored {backup}"
        database = Database(server.url("billing"))
        assert await verify(database) == []
        await database.close()
        print(f"backup {saved - started:.1f} s, restore {restored - saved:.1f} s")  # noqa: T201

    def test_a_restore_removes_what_came_after_the_backup(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        before = checksums(server)
        backup = Path(run_on_backups("backup.sh", server, tmp_path))
        server.as_root("CREATE TABLE tollgate_billing.newer (id INT PRIMARY KEY)")

        run_on_backups("restore.sh", server, tmp_path, BACKUP_FILE=backup.name)

        assert checksums(server) == before

    def test_only_old_backups_and_abandoned_drafts_are_deleted(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        old = ("tollgate-20200101T000000Z.sql.gz", ".tollgate-20200101T000000Z.sql.gz.part")
        kept = {"tollgate-20991231T000000Z.sql.gz", "notes", ".tollgate-now.part"}
        for name in (*old, *kept):
            (tmp_path / name).touch()
        for name in (*old, "notes"):
            os.utime(tmp_path / name, (0, 0))

        backup = Path(run_on_backups("backup.sh", server, tmp_path))

        assert {path.name for path in tmp_path.iterdir()} == kept | {backup.name}

    def test_a_failing_dump_frees_space_first_but_keeps_the_last_backup(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        names = ("tollgate-20200101T000000Z.sql.gz", "tollgate-20200102T000000Z.sql.gz")
        for name in names:
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, 0))

        assert failing_backup(server, tmp_path).returncode != 0
        assert [path.name for path in tmp_path.iterdir()] == [names[1]]

    def test_a_failed_backup_leaves_nothing_that_looks_like_one(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        assert failing_backup(server, tmp_path).returncode != 0
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_not_a_backup_is_not_restored(
        self, server: ChartServer, tmp_path: Path
    ) -> None:
        before = checksums(server)
        (tmp_path / "tollgate-20991231T000000Z.sql.gz").write_text("not compressed")
        result = run_script(
            "restore.sh",
            MYSQL_HOST="127.0.0.1",
            MYSQL_PORT=str(server.port),
            MYSQL_ROOT_PASSWORD=PASSWORDS["root"],
            BACKUP_DIR=str(tmp_path),
        )

        assert result.returncode == 1
        assert checksums(server) == before


class TestRendered:
    def test_the_jobs_run_these_scripts(self) -> None:
        rendered = render()
        data = rendered.get("ConfigMap", "mysql")["data"]

        for name in ("start.sh", "backup.sh", "restore.sh", "my.cnf"):
            assert data[name] == (SCRIPTS / name).read_text()
        for script, variables in (
            ("backup", "BACKUP_PASSWORD"),
            ("restore", "MYSQL_ROOT_PASSWORD"),
        ):
            job = rendered.get("CronJob", f"mysql-{script}")["spec"]["jobTemplate"]["spec"]
            [container] = job["template"]["spec"]["containers"]
            assert container["command"] == ["bash", f"/scripts/{script}.sh"]
            assert variables in {each["name"] for each in container["env"]}

    def test_a_restore_never_runs_by_itself(self) -> None:
        assert render().get("CronJob", "mysql-restore")["spec"]["suspend"] is True
        assert "suspend" not in render().get("CronJob", "mysql-backup")["spec"]

    def test_the_restore_commands_stop_writers_and_start_them_before_waiting(self) -> None:
        page = (ROOT / "docs" / "operations.md").read_text()
        [commands] = re.findall(r"^To restore.*?```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)
        steps = [line.split("  #")[0].strip() for line in commands.splitlines()]

        assert 'S="tollgate-auth tollgate-billing"' in steps  # inference's journals contain usage
        assert 'R="restore-$(date +%s)"' in steps  # a second drill needs another name
        down = steps.index("$N scale deployment $S $V --replicas 0")
        up = steps.index("$N scale deployment $S --replicas 2")
        upgrade = next(n for n, step in enumerate(steps) if step.startswith("helm "))
        assert down < steps.index('$N create job --from=cronjob/tollgate-mysql-restore "$R"') < up
        assert up < upgrade  # --wait accepts zero of zero replicas
        assert up < steps.index("$N scale deployment $V --replicas 1") < upgrade

    @pytest.mark.costly
    def test_data_is_durable_and_survives_the_release(self) -> None:
        rendered = render()
        spec = rendered.get("StatefulSet", "mysql")["spec"]
        config = rendered.get("ConfigMap", "mysql")["data"]["my.cnf"]

        assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
        assert "innodb_flush_log_at_trx_commit = 1" in config
        assert "sync_binlog = 1" in config
        assert "mysql" in spec["template"]["spec"]["containers"][0]["image"]
