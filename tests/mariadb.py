"""A private MariaDB or MySQL server: own data folder, own socket, a free loopback port.

It flushes at every commit, as in production; only what a test never needs is turned off.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pymysql

from cli.leash import on_leash
from tests.ports import free_port

_START_DEADLINE_S = 60
_PASSWORD = "tollgate"


class NoServer(Exception):
    """No mariadbd or mysqld on this machine."""


class Server:
    """A running server; `new_database` makes empty databases on it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.port = int(self._run("SELECT @@port"))
        self._run(f"CREATE USER tollgate@'%' IDENTIFIED BY '{_PASSWORD}'")
        self._run("GRANT ALL ON *.* TO tollgate@'%'")

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid4().hex}"
        self._run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+aiomysql://tollgate:{_PASSWORD}@127.0.0.1:{self.port}/{name}"

    def _run(self, statement: str) -> str:
        with (
            pymysql.connect(unix_socket=str(self._socket), user="root", autocommit=True) as link,
            link.cursor() as cursor,
        ):
            cursor.execute(statement)
            row = cursor.fetchone()
            return str(row[0]) if row else ""


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server on first use of the block and stop it, by its own pid, at the end.

    Raises:
        NoServer: there is none on this machine.
    """
    program = _program()
    # A socket's path may have about 100 characters: not in pytest's deep folders.
    folder = Path(tempfile.mkdtemp(prefix="tollgate-db-"))
    data, socket, log = folder / "data", folder / "s", folder / "log"
    try:
        _install(program, data=data, log=log)
        with log.open("ab") as output:
            process = subprocess.Popen(
                on_leash(*_command(program, data=data, socket=socket)),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield _wait(process, socket=socket, log=log)
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program() -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    if found is None:
        raise NoServer("neither mariadbd nor mysqld is installed")
    return found


def _install(program: str, *, data: Path, log: Path) -> None:
    installer = shutil.which("mariadb-install-db")
    command = (
        [installer, "--auth-root-authentication-method=normal", "--skip-test-db"]
        if installer and "mariadb" in Path(program).name
        else [program, "--initialize-insecure"]
    )
    options = ["--no-defaults", f"--datadir={data}", f"--tmpdir={data.parent}", *_as_whom()]
    with log.open("ab") as output:
        done = subprocess.run([command[0], *options, *command[1:]], stdout=output, stderr=output)
    if done.returncode:
        raise RuntimeError(f"the database server could not be set up:\n{log.read_text()}")


def _command(program: str, *, data: Path, socket: Path) -> list[str]:
    return [
        program,
        "--no-defaults",
        *_as_whom(),
        f"--datadir={data}",
        f"--tmpdir={data.parent}",  # two servers starting at once would share /tmp
        f"--socket={socket}",
        f"--pid-file={data / 'pid'}",
        "--bind-address=127.0.0.1",
        f"--port={free_port()}",
        "--skip-name-resolve",
        "--skip-log-bin",
        "--loose-mysqlx=OFF",
        "--performance-schema=OFF",
        "--max-connections=300",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=1",
    ]


def _as_whom() -> list[str]:
    """Root has to say that it means it; anybody else is who they are."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _wait(process: subprocess.Popen[bytes], *, socket: Path, log: Path) -> Server:
    deadline = time.monotonic() + _START_DEADLINE_S
    while not socket.exists():  # made when the server is ready to accept
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the database server does not run:\n{log.read_text()}")
        time.sleep(0.05)
    return Server(socket)
