"""A database server that starts as in the chart and docker-compose.yml: with start.sh."""

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
from tests.mariadb import NO_FILE_FOLDER, NoServer
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
    """A server on a data folder that outlives its restarts. It is MariaDB if there is no MySQL."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir()
        self.passwords = dict(PASSWORDS)
        """The passwords for the next start."""
        self._socket = folder / "s"
        self._log = folder / "log"
        self._environment = {"DATA_DIR": str(self.data), "RUN_DIR": str(folder)}

    def begin(self) -> subprocess.Popen[bytes]:
        """Run start.sh without waiting."""
        whom = ["--user=root"] if os.geteuid() == 0 else []
        with self._log.open("ab") as output:
            return subprocess.Popen(
                die_with_parent(
                    *("bash", str(SCRIPTS / "start.sh"), "--no-defaults", *whom),
                    *(f"--socket={self._socket}", f"--port={self.port}"),
                    *(f"--pid-file={self._socket}.pid", f"--tmpdir={self._log.parent}"),
                    *("--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"),
                    *("--performance-schema=OFF", "--innodb-buffer-pool-size=64M"),
                    NO_FILE_FOLDER,
                ),
                env={"PATH": _path(), **self._environment, **self._given()},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Accept connections inside the block, and stop cleanly after it."""
        process = self.begin()
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not self.lets_in("root"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(timeout=_DEADLINE_S)

    def lets_in(self, user: str, *, password: str | None = None) -> bool:
        """Return whether a user can log in by socket, with the last start's password or another."""
        if not self._listens():  # a driver that finds no server leaves its socket open
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
        """Run statements as the server's root; return the rows of the last."""
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
        """Return the URL at which a service's own user reaches its database."""
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
    """Return a server that has not been started yet; its data is deleted after the block.

    Raises:
        NoServer: this machine has none.
    """
    if not shutil.which("mysqld", path=_path()):
        raise NoServer("neither mariadbd nor mysqld is installed")
    # A socket's path is limited to about 100 characters, too few for pytest's deep folders.
    with tempfile.TemporaryDirectory(prefix="tollgate-db-") as folder:
        yield ChartServer(Path(folder))


def _path() -> str:
    path = f"{os.environ['PATH']}:{_SYSTEM}"
    return f"{_STAND_IN}:{path}" if shutil.which("mariadbd", path=path) else path
