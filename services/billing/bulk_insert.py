"""Insert or update many rows with one statement."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Dialect, Insert, Table, func
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.types import TypeEngine

from services.billing import amounts
from services.billing.models import Base
from services.common.db.columns import UtcDateTime

ColumnInsert = tuple[Insert, Mapping[str, Sequence[Any]]]
"""An INSERT, and what it inserts: the values of each column."""

_ROWS_PER_STATEMENT = 2_000
"""A row has at most about 700 bytes, and servers accept statements of at least 4 MiB."""
_WRITERS = ThreadPoolExecutor(2, thread_name_prefix="insert")
"""Threads for this alone: others may be busy for long, while a transaction here holds its locks."""


def table_of(model: type[Base]) -> Table:
    """Return a model's table, for inserts of many rows, which cost more through the ORM."""
    return cast(Table, model.__table__)


async def upsert(
    session: AsyncSession,
    model: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    add: Sequence[str] = (),
    add_amounts: Sequence[str] = (),
    put: Sequence[str] = (),
) -> None:
    """Insert rows; where a primary key exists, add to some of its columns and replace others.

    Args:
        add_amounts: names of amounts to add, each stored in two columns.
    """
    if rows:
        dialect = session.get_bind().dialect.name
        changes = {"add": add, "add_amounts": add_amounts, "put": put}
        await _insert(session, upserting(model, rows, dialect=dialect, **changes))


def upserting(
    model: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    dialect: str,
    add: Sequence[str] = (),
    add_amounts: Sequence[str] = (),
    put: Sequence[str] = (),
) -> ColumnInsert:
    """Return the INSERT of `upsert`, for `insert_all`.

    This is the one statement that differs between the two databases. Rows are sorted by primary
    key, so that concurrent batches wait for one another instead of deadlocking.

    Args:
        rows: at least one.
        dialect: the name of the database's kind.
    """
    keys = [column.key for column in table_of(model).primary_key]
    statement = _upserting(model, dialect, tuple(add), tuple(add_amounts), tuple(put))
    return statement, by_column(sorted(rows, key=itemgetter(*keys)))


def by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows that all have the same columns by column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


@lru_cache(maxsize=128)
def _upserting(
    model: type[Base],
    dialect: str,
    add: tuple[str, ...],
    add_amounts: tuple[str, ...],
    put: tuple[str, ...],
) -> Any:
    """Return the statement of `upserting`, the same object each time: it is compiled once."""
    table = table_of(model)
    columns = table.columns
    keys = [column.key for column in table.primary_key]

    def changes(new: Callable[[Any], ColumnElement[Any]]) -> list[tuple[str, ColumnElement[Any]]]:
        return [
            *((name, columns[name] + new(columns[name])) for name in add),
            *(each for name in add_amounts for each in amounts.added(table, name, new)),
            *((name, new(columns[name])) for name in put),
        ]

    if dialect == "mysql":
        # Not SQLAlchemy's `inserted`: on MySQL 8 it uses a row alias, and then aiomysql no longer
        # sends many rows as one statement.
        return mysql.insert(table).on_duplicate_key_update(
            changes(func.values) or [(keys[0], columns[keys[0]])]
        )
    onto = sqlite.insert(table)
    changed = dict(changes(lambda column: onto.excluded[column.key]))
    return (
        onto.on_conflict_do_update(index_elements=keys, set_=changed)
        if changed
        else onto.on_conflict_do_nothing(index_elements=keys)
    )


async def insert_rows(
    session: AsyncSession, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Run an INSERT of rows that all have the same columns."""
    await _insert(session, (statement, by_column(rows)))


async def insert_all(session: AsyncSession, inserts: Iterable[ColumnInsert]) -> None:
    """Run INSERTs one after the other.

    While a MySQL server runs one, a thread takes the next from `inserts` and writes its text.
    """
    if session.get_bind().dialect.name != "mysql":
        for insert in inserts:
            await _insert(session, insert)
        return
    connection = await session.connection()
    texts = await _texts(connection, inserts)
    take = partial(asyncio.get_running_loop().run_in_executor, _WRITERS, next, texts, None)
    following = take()
    while (text := await following) is not None:
        following = take()
        await _run(connection, text)


async def _insert(session: AsyncSession, insert: ColumnInsert) -> None:
    """Run an INSERT.

    On MySQL this writes the values into the statement's text. SQLAlchemy and the driver would
    convert every value on its own, which takes longer than the server needs to store it.
    """
    if session.get_bind().dialect.name != "mysql":
        statement, columns = insert
        rows = zip(*columns.values(), strict=True)
        await session.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])
        return
    connection = await session.connection()
    for text in await _texts(connection, [insert]):
        await _run(connection, text)


async def _texts(connection: AsyncConnection, inserts: Iterable[ColumnInsert]) -> Iterator[str]:
    """Return INSERTs as SQL text, each of a limited number of rows."""
    link: Any = (await connection.get_raw_connection()).driver_connection
    return (
        text
        for statement, columns in inserts
        for text in _texts_of(statement, columns, connection.dialect, link.escape)
    )


def _texts_of(
    statement: Insert,
    columns: Mapping[str, Sequence[Any]],
    dialect: Dialect,
    escape: Callable[[Any], str],
) -> Iterator[str]:
    head, tail, converters = _around_values(statement, dialect, tuple(columns))
    for start in range(0, len(next(iter(columns.values()))), _ROWS_PER_STATEMENT):
        literals = [
            _literals(
                columns[name][start : start + _ROWS_PER_STATEMENT], convert=convert, escape=escape
            )
            for name, convert in converters.items()
        ]
        values = ",".join([f"({','.join(row)})" for row in zip(*literals, strict=True)])
        yield head + values + tail


async def _run(connection: AsyncConnection, text: str) -> None:
    await connection.exec_driver_sql(text, execution_options={"no_parameters": True})


@lru_cache(maxsize=128)
def _around_values(
    statement: Insert, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, str, dict[str, Callable[[Any], Any] | None]]:
    """Return an INSERT's text before and after its row of values, and how to convert those.

    The columns are in the order of the statement, which is that of the table.
    """
    table = cast(Table, statement.table)
    compiled = str(statement.compile(dialect=dialect, column_keys=list(names)))
    head, _, tail = compiled.partition(f"({', '.join(['%s'] * len(names))})")
    converters = {
        column.key: _converter(column.type, dialect)
        for column in table.columns
        if column.key in names
    }
    return head, tail, converters


def _converter(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, UtcDateTime):
        return _utc_text
    return kind.dialect_impl(dialect).bind_processor(dialect)


@lru_cache(maxsize=_ROWS_PER_STATEMENT)
def _utc_text(value: datetime | None) -> str | None:
    """Return an aware datetime as text, in half the time that the type and the driver take.

    Cached, because the time of an event is stored in two tables.
    """
    if value is None:
        return None
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise ValueError("the datetime must have a time zone")
        value = value.astimezone(UTC)
    return value.isoformat(" ")[: -len("+00:00")]


def _literals(
    values: Sequence[Any],
    *,
    convert: Callable[[Any], Any] | None,
    escape: Callable[[Any], str],
) -> list[str]:
    """Return the values of a column as SQL; a value that many rows share is escaped once."""
    distinct = set(values)
    if len(distinct) == 1:
        return _escaped(values[:1], convert, escape) * len(values)
    if 2 * len(distinct) > len(values):
        return _escaped(values, convert, escape)
    literals = dict(zip(distinct, _escaped(list(distinct), convert, escape), strict=True))
    return [literals[value] for value in values]


def _escaped(
    values: Sequence[Any], convert: Callable[[Any], Any] | None, escape: Callable[[Any], str]
) -> list[str]:
    """Convert and escape values like the driver, with one call for a whole column of plain text."""
    if convert is not None:
        values = list(map(convert, values))
    kinds = set(map(type, values))
    if kinds == {str} and escape(together := "".join(values)) == f"'{together}'":
        return [f"'{value}'" for value in values]  # none of them needs escaping
    if kinds == {int}:
        return list(map(str, values))
    return [escape(value) for value in values]
