"""The database of a service, MySQL or SQLite: connections and units of work.

It guards against problems that these drivers really have:

- By default, two SQLite transactions can both read and then update: writers use `BEGIN IMMEDIATE`.
- aiomysql waits without limit for a server that hangs: every unit of work has a deadline, and the
  server ends the statements of cancelled clients.
- Pooled connections outlive a failover that makes their server read-only: they are dropped.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from pydantic import AfterValidator, SecretStr
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from services.common.db.engine import new_engine, tls_context
from services.common.db.pooling import spare_round_trips
from services.common.db.statements import trace_statements
from services.common.errors import Unavailable

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

DEADLINE_S = 5
"""Seconds that a unit of work may take, including waiting for a connection and for locks."""

_READ_ONLY_SERVER = {1290, 1836}
_LOST_RACE = {1205, 1213, 1305}
"""Lock wait timeout, deadlock, and no such savepoint: MySQL ends a transaction that deadlocks, and
its savepoints with it, so what fails then is the return to one."""

_POOL_SHARE = 0.6
"""The share of the deadline that a unit of work may wait for a connection."""


class LostRace(Unavailable):
    """A transaction lost to another one: a deadlock, or a lock that was not released in time."""

    def __init__(self) -> None:
        super().__init__("The database is too busy; retry in 1 s.")


class Database:
    """Owns the engine of one service; the lifespan creates and closes it.

    Args:
        url: SQLAlchemy async URL, `mysql+aiomysql://…` or `sqlite+aiosqlite://…`.
        deadline_s: seconds that a unit of work may take before it fails with 503.
        tracing: records the statements of traced requests.
    """

    def __init__(
        self, url: str, *, deadline_s: float = DEADLINE_S, tracing: "Tracing | None" = None
    ) -> None:
        self.deadline_s = deadline_s
        if make_url(url).get_backend_name() == "sqlite":
            self.engine = new_engine(
                url, sqlite={"timeout": deadline_s}, mysql={}, hide_parameters=True
            )
            self._reader = self.engine.execution_options(tollgate_read_only=True)
            self.engines = [self.engine]
        else:
            self.engine = _mysql_engine(url, deadline_s, isolation_level="READ COMMITTED")
            # Each statement sees what is committed then, so a transaction would add nothing to
            # reads but a round trip for its end.
            self._reader = _mysql_engine(
                url, deadline_s, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
            )
            _drop_read_only(self.engine, self._reader)
            self.engines = [self.engine, self._reader]
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._read_only = async_sessionmaker(self._reader, expire_on_commit=False)
        if tracing is not None:
            for engine in self.engines:
                trace_statements(engine.sync_engine, tracing)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Run a unit of work: commit when the block ends, roll back when it raises.

        Raises:
            LostRace: it lost to another transaction, and can be tried again; see `retrying`.
            Unavailable: the database is unreachable, read-only, or slower than the deadline.
        """
        async with self._bounded(), self.sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """Run a read-only unit of work; on SQLite it does not wait for writers.

        On MySQL, each statement sees what is committed when it begins.
        """
        async with self._bounded(), self._read_only() as session:
            yield session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Run a read-only unit of work without a session, which would double the time of one
        statement."""
        async with self._bounded(), self._reader.connect() as connection:
            yield connection

    async def close(self) -> None:
        for engine in self.engines:
            await engine.dispose()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        with translated_errors():
            async with asyncio.timeout(self.deadline_s):
                yield


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what the database's failures mean to callers.

    Raises:
        LostRace: a transaction lost to another one.
        Unavailable: the database is unreachable, read-only, or too slow.
    """
    try:
        yield
    except (TimeoutError, PoolTimeout) as error:
        raise Unavailable("The database is too slow; retry in 1 s.") from error
    except (OperationalError, InterfaceError) as error:
        if _is_lost_race(error):
            raise LostRace() from error
        raise Unavailable("The database is unavailable; retry in 1 s.") from error


def _mysql_engine(url: str, deadline_s: float, **options: Any) -> AsyncEngine:
    engine = new_engine(
        url,
        sqlite={},
        mysql={
            "charset": "utf8mb4",
            "connect_timeout": 3,
            "init_command": _mysql_session(deadline_s),
        },
        hide_parameters=True,
        pool_size=10,
        max_overflow=0,
        pool_timeout=_POOL_SHARE * deadline_s,
        pool_recycle=280,  # below every managed MySQL's idle timeout
        pool_reset_on_return=None,
        **options,
    )
    spare_round_trips(engine)
    return engine


def _mysql_session(deadline_s: float) -> str:
    """Return the statement that sets up a connection, with the server's own limits.

    MariaDB reads the `M!` comment (seconds), MySQL 8 the other (milliseconds).
    """
    seconds = math.ceil(deadline_s)
    return (
        f"SET SESSION time_zone='+00:00', innodb_lock_wait_timeout={seconds}, "
        "sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO'"
        f" /*M!100000 , max_statement_time={seconds} */"
        f" /*!80000 , max_execution_time={seconds * 1000} */"
    )


def _database_url(url: SecretStr) -> SecretStr:
    try:
        parsed = make_url(url.get_secret_value())
        driver = parsed.drivername
    except (ArgumentError, ValueError):  # the message may contain part of the password
        driver = ""
    if driver not in ("mysql+aiomysql", "sqlite+aiosqlite"):
        raise ValueError("must be mysql+aiomysql://… or sqlite+aiosqlite://…, percent-encoded")
    try:
        tls_context(parsed)
    except OSError as error:
        raise ValueError("cannot read the certificates in ssl_ca") from error
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
"""An SQLAlchemy async URL for one of the two drivers; `?ssl_ca=FILE` requires TLS."""


def _is_lost_race(error: DBAPIError) -> bool:
    return error.orig is not None and bool(error.orig.args) and error.orig.args[0] in _LOST_RACE


def _drop_read_only(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Drop pooled connections to a read-only server, such as the old primary after a failover.

    Reads succeed there, so those of the reader are replaced once a write has failed.
    """
    is_outdated = False

    def notice(failure: ExceptionContext) -> None:
        nonlocal is_outdated
        cause = failure.original_exception
        if cause is not None and cause.args and cause.args[0] in _READ_ONLY_SERVER:
            failure.is_disconnect = is_outdated = True

    def replace(*_: object) -> None:
        nonlocal is_outdated
        if is_outdated:
            is_outdated = False
            raise InvalidatePoolError()

    event.listen(writer.sync_engine, "handle_error", notice)
    event.listen(reader.sync_engine, "checkout", replace)


# -- FastAPI: the only commit of a request -------------------------------------------------------


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _transaction(request: Request) -> AsyncIterator[AsyncSession]:
    database = await _database(request)
    async with database.transaction() as session:
        yield session


async def _snapshot(request: Request) -> AsyncIterator[AsyncSession]:
    database = await _database(request)
    async with database.snapshot() as session:
        yield session


AppDatabase = Annotated[Database, Depends(_database)]
"""For endpoints that open transactions themselves, such as with `in_transaction`."""

# scope="function": commit before the response is sent, so that a failed commit is reported.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]
Snapshot = Annotated[AsyncSession, Depends(_snapshot, scope="function")]
