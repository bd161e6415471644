"""Connections to SQLite databases for SQLAlchemy, with few steps of their threads.

A connection has a thread, because SQLite blocks. To execute a statement, aiosqlite goes to that
thread and back four times: for a cursor, the statement, its rows, and the end of the cursor. Here
it goes once.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Self

import aiosqlite

_AT_ONCE = 1_000
"""Rows that are read with the statement; further ones stay in the database until they are asked
for, so that a stream of any length needs little memory."""


async def connect_sqlite(*arguments: Any, **options: Any) -> aiosqlite.Connection:
    """Open a SQLite database; if that fails, wait until the connection's thread has ended.

    The thread would otherwise print a traceback if the event loop ended before it.

    Args:
        arguments: of `sqlite3.connect`, like `options`.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    opened = partial(sqlite3.connect, *arguments, factory=_UnlockingConnection, **options)
    connection = _Connection(opened, iter_chunk_size=_AT_ONCE)
    connection._thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        await asyncio.to_thread(connection._thread.join)
        raise


class _UnlockingConnection(sqlite3.Connection):
    """A connection that gives up its locks when it is closed.

    SQLite only closes a connection once all its statements are finished. A task that is cancelled
    between a statement and its rows leaves one, which locked the database until a garbage collector
    found it.
    """

    def close(self) -> None:
        if self.in_transaction:
            self.rollback()
        super().close()


class _Connection(aiosqlite.Connection):
    def cursor(self) -> "_Cursor":  # type: ignore[override]
        return _Cursor(self, sqlite3.Cursor.__new__(sqlite3.Cursor))


class _Cursor(aiosqlite.Cursor):
    """Opens its cursor, executes, reads and closes in one step."""

    _execute: Callable[..., Coroutine[Any, Any, Any]]
    _rows: Sequence[Any] = ()
    _is_open = False

    async def execute(self, sql: str, parameters: Any = None) -> Self:
        await self._execute(self._run, "execute", sql, parameters or ())
        return self

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> Self:
        await self._execute(self._run, "executemany", sql, parameters)
        return self

    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        wanted = size or 1
        while self._is_open and len(self._rows) < wanted:
            await self._execute(self._read)
        rows, self._rows = self._rows[:wanted], self._rows[wanted:]
        return rows

    async def fetchall(self) -> Sequence[Any]:
        return await self.fetchmany(sys.maxsize)

    async def close(self) -> None:
        if self._is_open:
            await self._execute(self._finish)

    def _run(self, method: str, sql: str, parameters: Any) -> None:
        self._cursor, self._is_open, self._rows = self._conn._conn.cursor(), True, []
        getattr(self._cursor, method)(sql, parameters)
        self._read()

    def _read(self) -> None:
        rows = self._cursor.fetchmany(_AT_ONCE)
        self._rows = [*self._rows, *rows]
        if len(rows) < _AT_ONCE:
            self._finish()

    def _finish(self) -> None:
        self._cursor.close()
        self._is_open = False
