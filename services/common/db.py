"""One way to MySQL and SQLite alike: engine, unit of work, column types.

What it guards against, each seen to happen with these drivers:

- SQLite's default lets two readers both update: writers begin with `BEGIN IMMEDIATE`.
- aiomysql waits for ever on a server that hangs: every unit of work has a deadline, and the server
  ends what a cancelled client left behind.
- A primary that became read-only keeps its pooled connections: they are dropped.
- The default collation takes `A` for `a` and `é` for `e`: identifiers are `ascii_bin`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from pydantic import AfterValidator, SecretStr
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    event,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
)

from services.common.engines import new_engine, tls_context
from services.common.errors import Unavailable
from services.common.statements import trace_statements

if TYPE_CHECKING:
    from services.common.tracing import Tracing

DEADLINE_S = 5
"""Seconds one unit of work may take, waiting for a connection and for locks included."""

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
_READ_ONLY_SERVER = {1290, 1836}
_RETRYABLE = {1205, 1213}

# Server-side limits: MariaDB reads the `M!` comment (seconds), MySQL 8 the other (milliseconds).
_MYSQL_SESSION = (
    f"SET SESSION time_zone='+00:00', innodb_lock_wait_timeout={DEADLINE_S}, "
    "sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO'"
    f" /*M!100000 , max_statement_time={DEADLINE_S} */"
    f" /*!80000 , max_execution_time={DEADLINE_S * 1000} */"
)


def new_metadata() -> MetaData:
    """Metadata whose constraints have the same names on every database."""
    return MetaData(naming_convention=_NAMING)


# -- column types --------------------------------------------------------------------------------


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds; naive values are refused."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        utc = value if value.tzinfo is UTC else value.astimezone(UTC)
        return utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


def ascii_id(length: int) -> String:
    """A column type for identifiers, compared byte for byte on every database."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


Serial = BigInteger().with_variant(Integer, "sqlite")
"""An auto-incrementing 64-bit key; SQLite increments only what it calls INTEGER."""


# -- engine and unit of work ---------------------------------------------------------------------


class Database:
    """Owns the engine of one service; the lifespan builds it and closes it.

    Args:
        url: SQLAlchemy async URL, `mysql+aiomysql://…` or `sqlite+aiosqlite://…`.
        deadline_s: seconds one unit of work may take before it is answered 503.
        tracing: where to show each statement of a traced request.
    """

    def __init__(
        self, url: str, *, deadline_s: float = DEADLINE_S, tracing: "Tracing | None" = None
    ) -> None:
        self.deadline_s = deadline_s
        sqlite = make_url(url).get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {}
            if sqlite
            else {
                "isolation_level": "READ COMMITTED",
                "pool_size": 10,
                "max_overflow": 0,
                "pool_timeout": 3,
                "pool_recycle": 280,  # below every managed MySQL's idle timeout
                "pool_pre_ping": True,
            }
        )
        self.engine = new_engine(
            url,
            sqlite={"timeout": deadline_s},
            mysql={"charset": "utf8mb4", "connect_timeout": 3, "init_command": _MYSQL_SESSION},
            hide_parameters=True,
            **options,
        )
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._read_only = async_sessionmaker(
            self.engine.execution_options(tollgate_read_only=True), expire_on_commit=False
        )
        if not sqlite:
            event.listen(self.engine.sync_engine, "handle_error", _drop_read_only)
        if tracing is not None:
            trace_statements(self.engine.sync_engine, tracing)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One unit of work: committed when the block ends, rolled back when it raises.

        Raises:
            Unavailable: the database is away, read-only, or slower than the deadline.
        """
        async with self._bounded(), self.sessions.begin() as session:
            yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """Like `transaction`, for reading only: on SQLite it waits for no writer."""
        async with self._bounded(), self._read_only.begin() as session:
            yield session

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.deadline_s):
                yield
        except (TimeoutError, PoolTimeout) as error:
            raise Unavailable("The database is too slow to answer right now.") from error
        except (OperationalError, InterfaceError) as error:
            if is_retryable(error):
                raise
            raise Unavailable("The database cannot be reached right now.") from error


def _database_url(url: SecretStr) -> SecretStr:
    try:
        parsed = make_url(url.get_secret_value())
        driver = parsed.drivername
    except (ArgumentError, ValueError):  # whose words may hold a part of the password
        driver = ""
    if driver not in ("mysql+aiomysql", "sqlite+aiosqlite"):
        raise ValueError("must be mysql+aiomysql://… or sqlite+aiosqlite://…, percent-encoded")
    try:
        tls_context(parsed)
    except OSError as error:
        raise ValueError("the certificates that ssl_ca names cannot be read") from error
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
"""An SQLAlchemy async URL with one of the two drivers; `?ssl_ca=FILE` asks for TLS."""


def is_retryable(error: BaseException) -> bool:
    """Whether a transaction lost against another (deadlock, lock wait) and may be repeated."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    return bool(error.orig.args) and error.orig.args[0] in _RETRYABLE


def _drop_read_only(failure: ExceptionContext) -> None:
    """After a failover the old primary refuses writes: give up its pooled connections."""
    cause = failure.original_exception
    if cause is not None and cause.args and cause.args[0] in _READ_ONLY_SERVER:
        failure.is_disconnect = True


# -- FastAPI: the only commit of a request -------------------------------------------------------


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _transaction(request: Request) -> AsyncIterator[AsyncSession]:
    try:
        async with _database(request).transaction() as session:
            yield session
    except OperationalError as error:  # it lost against another, and a request cannot be repeated
        raise Unavailable("The database is too busy right now.") from error


async def _snapshot(request: Request) -> AsyncIterator[AsyncSession]:
    async with _database(request).snapshot() as session:
        yield session


# scope="function": the commit happens before the answer leaves, so that a failed one is seen.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]
Snapshot = Annotated[AsyncSession, Depends(_snapshot, scope="function")]
