"""A database server that starts as in the chart and docker-compose.yml: with start.sh."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from harness.mariadb import NO_FILE_FOLDER, WITHOUT_TLS, run_as_root
from harness.ports import free_port
from harness.processes import Process, await_process, start_process, stop_process
from harness.programs import SEARCH_PATH, find_program
from tests.integration.deploy.chart import CHART, ROOT

SCRIPTS = CHART / "files" / "mysql"
PASSWORDS = {
    "root": "rootpassword",
    "auth": "authpassword",
    "billing": "billingpassword",
    "backup": "backuppassword",
}
_STAND_IN = ROOT / "tests" / "e2e" / "compose" / "stand-ins"


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

    def begin(self) -> Process:
        """Run start.sh without waiting."""
        return start_process(
            *("bash", str(SCRIPTS / "start.sh"), "--no-defaults", *run_as_root()),
            *(f"--socket={self._socket}", f"--port={self.port}"),
            *(f"--pid-file={self._socket}.pid", f"--tmpdir={self._log.parent}"),
            *("--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"),
            *("--performance-schema=OFF", "--innodb-buffer-pool-size=64M"),
            NO_FILE_FOLDER,
            environment={"PATH": _path(), **self._environment, **self._given()},
            log=self._log,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Accept connections inside the block, and stop cleanly after it."""
        process = self.begin()
        try:
            await_process(process, lambda: self.can_connect("root"), log=self._log)
            yield
        finally:
            stop_process(process)

    def can_connect(self, user: str, *, password: str | None = None) -> bool:
        """Return whether a user can connect by socket; default password: the last start's."""
        if not self._listens():  # a driver that finds no server leaves its socket open
            return False
        try:
            pymysql.connect(
                unix_socket=str(self._socket),
                user=user,
                password=self.passwords[user] if password is None else password,
                **WITHOUT_TLS,
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
                **WITHOUT_TLS,
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
        NotInstalled: this machine has none.
    """
    find_program("mariadbd", "mysqld")
    # A socket's path is limited to about 100 characters, too few for pytest's deep folders.
    with tempfile.TemporaryDirectory(prefix="tollgate-db-") as folder:
        yield ChartServer(Path(folder))


def _path() -> str:
    return (
        f"{_STAND_IN}:{SEARCH_PATH}" if shutil.which("mariadbd", path=SEARCH_PATH) else SEARCH_PATH
    )
