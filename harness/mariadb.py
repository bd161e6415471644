"""A MariaDB or MySQL server: a private one, or the one that TOLLGATE_TEST_MYSQL_URL names.

The private one has its own data folder, its own socket and a free loopback port. It flushes at
every commit, as in production; only features that no test needs are turned off. On a given server,
such as mysql://root:secret@127.0.0.1:3306, each worker uses its own databases. Tests that kill or
freeze a server always start a private one. The server that other tests share is never killed, so
it leaves its writes to the operating system: a migration takes a quarter of the time.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pymysql

from harness.ports import free_port
from harness.processes import await_process, end_of, kill_process, start_process, stop_process
from harness.programs import SEARCH_PATH, find_program

_PASSWORD = "tollgate"
NO_FILE_FOLDER = "--loose-secure-file-priv="
"""MySQL's packages name a folder that may be missing, and the server then refuses to start."""

WITHOUT_TLS: Any = {"ssl_disabled": True}
"""For connections by socket: even to offer TLS, PyMySQL loads all CAs, which takes 0.05 s."""

_WITHOUT_FSYNC = "--innodb-flush-method=nosync"


class ExternalServer:
    """A server that already runs; the databases created on it are dropped at the end."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._databases: list[str] = []

    def new_database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"test_{uuid4().hex}"
        self._run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        self._databases.append(name)
        return f"mysql+aiomysql://{self._url.netloc}/{name}"

    def drop_databases(self) -> None:
        """Drop the databases that were created here."""
        for name in self._databases:
            self._run(f"DROP DATABASE {name}")

    def _run(self, statement: str) -> None:
        with (
            pymysql.connect(
                host=self._url.hostname,
                port=self._url.port or 3306,
                user=unquote(self._url.username or "root"),
                password=unquote(self._url.password or ""),
                autocommit=True,
            ) as client,
            client.cursor() as cursor,
        ):
            cursor.execute(statement)


class Server:
    """A running private server; `new_database` creates empty databases on it.

    A test that kills, freezes or restarts a server needs a private one of its own.
    """

    def __init__(self, folder: Path, program: str, *, options: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        self.socket = folder / "s"
        """The socket at which the server's root user connects without a password."""
        self._log = folder / "log"
        self._command = [*_command(program, folder=folder, port=self.port), *options]
        self.start()
        self._run(f"CREATE USER tollgate@'%' IDENTIFIED BY '{_PASSWORD}'")
        self._run("GRANT ALL ON *.* TO tollgate@'%'")
        self._is_mariadb = "MariaDB" in self._run("SELECT VERSION()")
        if self._is_mariadb:
            self._run("REVOKE READ_ONLY ADMIN ON *.* FROM tollgate@'%'")

    def start(self) -> None:
        """Start the server on its existing data; return when it accepts connections."""
        self.socket.unlink(missing_ok=True)  # a killed server leaves it behind
        self._process = start_process(*self._command, log=self._log)
        # The server creates its socket when it is ready to accept.
        await_process(self._process, self.socket.exists, log=self._log)

    def signal(self, number: int) -> None:
        """Send the server a signal, such as SIGSTOP or SIGCONT."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL the server, and wait until it is gone."""
        kill_process(self._process)

    def stop(self) -> None:
        """Stop the server cleanly if it is running."""
        stop_process(self._process, within_s=120)

    def end_connections(self) -> int:
        """KILL every connection of the services; return how many there were."""
        connections = self.connections()
        for each in connections:
            with suppress(pymysql.OperationalError):  # it is already gone
                self._run(f"KILL {each}")
        return len(connections)

    def set_read_only(self, read_only: bool) -> None:
        """Refuse writes with error 1290, like an old primary after a failover; or accept them."""
        variable = "read_only" if self._is_mariadb else "super_read_only"
        self._run(f"SET GLOBAL {variable} = {int(read_only)}")

    def set_idle_timeout(self, seconds: int) -> None:
        """Set the idle timeout of connections made from now on."""
        self._run(f"SET GLOBAL wait_timeout = {seconds}")

    def connections(self) -> set[int]:
        """Return the ids of the services' connections."""
        ids = self._run(
            "SELECT GROUP_CONCAT(id) FROM information_schema.processlist"
            " WHERE id <> CONNECTION_ID() AND user = 'tollgate'"
        )
        return {int(each) for each in ids.split(",") if each not in ("", "None")}

    def new_database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"test_{uuid4().hex}"
        self._run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+aiomysql://tollgate:{_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def _run(self, statement: str) -> str:
        with (
            pymysql.connect(
                unix_socket=str(self.socket), user="root", autocommit=True, **WITHOUT_TLS
            ) as client,
            client.cursor() as cursor,
        ):
            cursor.execute(statement)
            row = cursor.fetchone()
            return str(row[0]) if row else ""


@contextmanager
def running_server(*options: str) -> Iterator[Server]:
    """Run a private server inside the block.

    Args:
        options: options of the server, which override those here.

    Raises:
        NotInstalled: neither mariadbd nor mysqld is installed on this machine.
    """
    program = find_program("mariadbd", "mysqld")
    # A socket's path is limited to about 100 characters, too few for pytest's deep folders.
    folder = Path(tempfile.mkdtemp(prefix="tollgate-db-"))
    try:
        _install(program, folder=folder)
        server = Server(folder, program, options=options)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def any_server() -> Iterator[ExternalServer | Server]:
    """Yield the server that the environment names, or else a private one.

    Raises:
        NotInstalled: the environment names no server, and none is installed on this machine.
    """
    url = os.environ.get("TOLLGATE_TEST_MYSQL_URL")
    if not url:
        with running_server(_WITHOUT_FSYNC) as started:
            yield started
        return
    server = ExternalServer(url)
    try:
        yield server
    finally:
        server.drop_databases()


def _install(program: str, *, folder: Path) -> None:
    installer = shutil.which("mariadb-install-db", path=SEARCH_PATH)
    command = (
        [installer, "--auth-root-authentication-method=normal", "--skip-test-db"]
        if installer and "mariadb" in Path(program).name
        else [program, "--initialize-insecure"]
    )
    options = [
        "--no-defaults",
        f"--datadir={folder / 'data'}",
        f"--tmpdir={folder}",
        *run_as_root(),
    ]
    options.append(NO_FILE_FOLDER)
    log = folder / "log"
    with log.open("ab") as output:
        result = subprocess.run([command[0], *options, *command[1:]], stdout=output, stderr=output)
    if result.returncode:
        raise RuntimeError(f"the database server could not be set up:\n{end_of(log)}")


def _command(program: str, *, folder: Path, port: int) -> list[str]:
    data = folder / "data"
    return [
        program,
        "--no-defaults",
        *run_as_root(),
        f"--datadir={data}",
        f"--tmpdir={folder}",  # two servers that start at the same time would share /tmp
        f"--socket={folder / 's'}",
        f"--pid-file={data / 'pid'}",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--loose-mysqlx=OFF",
        NO_FILE_FOLDER,
        "--performance-schema=OFF",
        "--max-connections=300",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=1",
    ]


def run_as_root() -> list[str]:
    """Return the option that lets a server run as root, if this process does."""
    return ["--user=root"] if os.geteuid() == 0 else []
