"""What the slices share about the database: repeated transactions, and inserts of many rows."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, Dialect, Insert, Table, func
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from services.billing import wide
from services.billing.models import Base
from services.common.db import Database, is_retryable
from services.common.errors import Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"

_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.01
_DUPLICATE_KEY = 1062
_ROWS_PER_STATEMENT = 2_000
"""Of about 700 bytes at most, where servers take 4 MiB at least."""
_random = secrets.SystemRandom()

T = TypeVar("T")


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Store = Annotated[Database, Depends(_database)]
"""For endpoints that write: with `in_transaction`, because a dependency cannot be repeated."""


async def in_transaction(database: Database, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in a transaction of its own, again when it lost a race, a few times.

    Two transactions may find the same row missing and both insert it, or lock rows against each
    other; the loser starts over and then sees what the winner wrote.

    Raises:
        Unavailable: it lost every time, or the database is away.
    """
    for attempt in range(_ATTEMPTS):
        try:
            async with database.transaction() as session:
                return await work(session)
        except DBAPIError as error:
            if not _lost_a_race(error):
                raise
        await asyncio.sleep(_random.uniform(0, _FIRST_PAUSE_S * 2**attempt))
    raise Unavailable("The database is too busy right now.")


def _lost_a_race(error: DBAPIError) -> bool:
    arguments = error.orig.args if error.orig is not None else ()
    return is_retryable(error) or bool(arguments and arguments[0] == _DUPLICATE_KEY)


def table_of(model: type[Base]) -> Table:
    """A model's table, for inserts of many rows: through the ORM each row costs more."""
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
    """Insert rows; where the primary key exists, add some columns to it and replace others.

    The one statement the two databases spell differently. Rows are sorted by primary key here, so
    that concurrent batches wait for one another instead of deadlocking.

    Args:
        add_amounts: the names of amounts, each in two columns.
    """
    if not rows:
        return
    table = table_of(model)
    columns = table.columns
    keys = [column.key for column in table.primary_key]

    def changes(new: Callable[[Any], ColumnElement[Any]]) -> list[tuple[str, ColumnElement[Any]]]:
        return [
            *((name, columns[name] + new(columns[name])) for name in add),
            *(each for name in add_amounts for each in wide.added(table, name, new)),
            *((name, new(columns[name])) for name in put),
        ]

    if session.get_bind().dialect.name == "mysql":
        # Not SQLAlchemy's `inserted`: on MySQL 8 it names the row by an alias, and then aiomysql
        # no longer sends many rows as one statement.
        statement: Any = mysql.insert(table).on_duplicate_key_update(
            changes(func.values) or [(keys[0], columns[keys[0]])]
        )
    else:
        onto = sqlite.insert(table)
        changed = dict(changes(lambda column: onto.excluded[column.key]))
        statement = (
            onto.on_conflict_do_update(index_elements=keys, set_=changed)
            if changed
            else onto.on_conflict_do_nothing(index_elements=keys)
        )
    await insert_rows(session, statement, sorted(rows, key=itemgetter(*keys)))


async def insert_rows(
    session: AsyncSession, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Run an INSERT of rows that all name the same columns.

    On MySQL they are put into the text of the statement here, column by column. SQLAlchemy and the
    driver look at every value by itself, which takes longer than the server needs to store it.
    """
    if session.get_bind().dialect.name != "mysql":
        await session.execute(statement, rows)
        return
    connection = await session.connection()
    link: Any = (await connection.get_raw_connection()).driver_connection
    table, names = cast(Table, statement.table), list(rows[0])
    compiled = str(statement.compile(dialect=connection.dialect, column_keys=names))
    names.sort(key=[column.key for column in table.columns].index)  # the order of the statement
    head, _, tail = compiled.partition(f"({', '.join(['%s'] * len(names))})")
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        part = rows[start : start + _ROWS_PER_STATEMENT]
        columns = [
            _literals(
                [row[name] for row in part],
                convert=_converter(table.columns[name].type, connection.dialect),
                escape=link.escape,
            )
            for name in names
        ]
        values = ",".join([f"({','.join(row)})" for row in zip(*columns, strict=True)])
        await connection.exec_driver_sql(
            head + values + tail, execution_options={"no_parameters": True}
        )


def _converter(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _literals(
    values: Sequence[Any],
    *,
    convert: Callable[[Any], Any] | None,
    escape: Callable[[Any], str],
) -> list[str]:
    """The values of a column as SQL: its type converts, and the driver escapes, each but once."""
    distinct = list(set(values))
    converted = [convert(value) for value in distinct] if convert else distinct
    literals = dict(zip(distinct, _escaped(converted, escape), strict=True))
    return [literals[value] for value in values]


def _escaped(values: Sequence[Any], escape: Callable[[Any], str]) -> list[str]:
    """What the driver makes of values, asked once for a whole column of plain text."""
    kinds = set(map(type, values))
    if kinds == {str} and escape(together := "".join(values)) == f"'{together}'":
        return [f"'{value}'" for value in values]  # nothing in any of them has to be escaped
    if kinds == {int}:
        return list(map(str, values))
    # The driver takes several times as long for a moment.
    return [f"'{each!s}'" if isinstance(each, datetime) else escape(each) for each in values]
