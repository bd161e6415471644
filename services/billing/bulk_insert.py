"""Insert or update many rows with one statement."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Dialect, Insert, Table, func
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from services.billing import amounts
from services.billing.models import Base
from services.common.db.columns import UtcDateTime

_ROWS_PER_STATEMENT = 2_000
"""A row has at most about 700 bytes, and servers accept statements of at least 4 MiB."""


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

    This is the one statement that differs between the two databases. Rows are sorted by primary
    key, so that concurrent batches wait for one another instead of deadlocking.

    Args:
        add_amounts: names of amounts to add, each stored in two columns.
    """
    if not rows:
        return
    table = table_of(model)
    columns = table.columns
    keys = [column.key for column in table.primary_key]

    def changes(new: Callable[[Any], ColumnElement[Any]]) -> list[tuple[str, ColumnElement[Any]]]:
        return [
            *((name, columns[name] + new(columns[name])) for name in add),
            *(each for name in add_amounts for each in amounts.added(table, name, new)),
            *((name, new(columns[name])) for name in put),
        ]

    if session.get_bind().dialect.name == "mysql":
        # Not SQLAlchemy's `inserted`: on MySQL 8 it uses a row alias, and then aiomysql no longer
        # sends many rows as one statement.
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
    """Run an INSERT of rows that all have the same columns.

    On MySQL this writes the values into the statement's text, column by column. SQLAlchemy and the
    driver would convert every value on its own, which takes longer than the server needs to store
    it.
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
    if isinstance(kind, UtcDateTime):
        return _utc_text
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _utc_text(value: datetime | None) -> str | None:
    """Return an aware datetime as text, in half the time that the type and the driver take."""
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
