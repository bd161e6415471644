"""A database server, started as the chart and docker-compose.yml do it: by start.sh."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from cli.die_with_parent import die_with_parent
from tests.deploy.chart import CHART, ROOT
from tests.mariadb import NoServer
from tests.ports import free_port

SCRIPTS = CHART / "files" / "mysql"
PASSWORDS = {
    "root": "rootpassword",
    "auth": "authpassword",
    "billing": "billingpassword",
    "backup": "backuppassword",
}
_STAND_IN = ROOT / "tests" / "compose" / "stand-ins"
_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
_DEADLINE_S = 60


class ChartServer:
    """A server on a data folder that outlives its restarts. MariaDB does if there is no MySQL."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir()
        self.passwords = dict(PASSWORDS)
        """What the next start is given."""
        self._socket = folder / "s"
        self._log = folder / "log"
        self._environment = {"DATA_DIR": str(self.data), "RUN_DIR": str(folder)}

    def begin(self) -> subprocess.Popen[bytes]:
        """Run start.sh, without a wait."""
        whom = ["--user=root"] if os.geteuid() == 0 else []
        with self._log.open("ab") as output:
            return subprocess.Popen(
                die_with_parent(
                    *("bash", str(SCRIPTS / "start.sh"), "--no-defaults", *whom),
                    *(f"--socket={self._socket}", f"--port={self.port}"),
                    *(f"--pid-file={self._socket}.pid", f"--tmpdir={self._log.parent}"),
                    *("--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"),
                    *("--performance-schema=OFF", "--innodb-buffer-pool-size=64M"),
                ),
                env={"PATH": _path(), **self._environment, **self._given()},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """It takes connections inside the block, and has ended in order after it."""
        process = self.begin()
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not self.lets_in("root"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not run:\n{self._log.read_text()}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(timeout=_DEADLINE_S)

    def lets_in(self, user: str, *, password: str | None = None) -> bool:
        """Whether a user may come by its socket, with the password of the last start or another."""
        if not self._listens():  # a driver that finds nobody leaves its socket open
            return False
        try:
            pymysql.connect(
                unix_socket=str(self._socket),
                user=user,
                password=self.passwords[user] if password is None else password,
            ).close()
        except pymysql.OperationalError:
            return False
        return True

    def as_root(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as the server's root; the rows of the last."""
        with (
            pymysql.connect(
                unix_socket=str(self._socket),
                user="root",
                password=self.passwords["root"],
                autocommit=True,
            ) as link,
            link.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def url(self, service: str) -> str:
        """Where a service's own user reaches its database."""
        where = f"127.0.0.1:{self.port}/tollgate_{service}"
        return f"mysql+aiomysql://{service}:{self.passwords[service]}@{where}"

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def _given(self) -> dict[str, str]:
        return {
            f"{'MYSQL_' if user == 'root' else ''}{user.upper()}_PASSWORD": password
            for user, password in self.passwords.items()
        }


@contextmanager
def new_server() -> Iterator[ChartServer]:
    """A server that has not been started yet; its data goes with the block.

    Raises:
        NoServer: there is none on this machine.
    """
    if not shutil.which("mysqld", path=_path()):
        raise NoServer("neither mariadbd nor mysqld is installed")
    # A socket's path may have about 100 characters: not in pytest's deep folders.
    with tempfile.TemporaryDirectory(prefix="tollgate-db-") as folder:
        yield ChartServer(Path(folder))


def _path() -> str:
    path = f"{os.environ['PATH']}:{_SYSTEM}"
    return f"{_STAND_IN}:{path}" if shutil.which("mariadbd", path=path) else path
