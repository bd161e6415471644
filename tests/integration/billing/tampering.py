"""Changes a single cell of the books, as no code does."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Table, func, select, update

from services.billing.archives.reading import NO_ARCHIVES, Archives
from services.billing.models import Base
from services.billing.verify import verify
from services.common.db.database import Database


def cells(*names: str) -> list[tuple[str, str]]:
    """Return each column of some tables, as table and column."""
    return [(name, column.key) for name in names for column in Base.metadata.tables[name].columns]


async def unnoticed_changes(
    database: Database,
    changes: Iterable[tuple[str, str]],
    *,
    naming: str = "",
    archives: Archives = NO_ARCHIVES,
) -> list[tuple[str, str]]:
    """Change one cell of each of these columns, one at a time.

    All changes are made to the same books, which take longer to write than to verify.

    Returns:
        The columns of which `verify` named no difference that begins with `naming`.
    """
    unnoticed = []
    for table, column in changes:
        async with changed_cell(database, table, column) as is_changed:
            assert is_changed, f"{table} is empty"
            differences = await verify(database, archives)
        if not any(each.startswith(naming) for each in differences):
            unnoticed.append((table, column))
    return unnoticed


@asynccontextmanager
async def changed_cell(
    database: Database, table_name: str, column_name: str, *, number: int = 0
) -> AsyncIterator[bool]:
    """Change one cell of some row inside the block; yield whether there is one to change."""
    table = Base.metadata.tables[table_name]
    column = table.columns[column_name]
    async with database.transaction() as session:
        rows = await session.scalar(select(func.count()).select_from(table)) or 0
        if rows == 0:
            yield False
            return
        in_order = select(table).order_by(*table.primary_key).offset(number % rows).limit(1)
        before = dict((await session.execute(in_order)).mappings().one())
        changed = before | {column_name: _other(before[column_name], column)}
        await session.execute(_replace(table, before, changed))
    try:
        yield True
    finally:
        async with database.transaction() as session:
            await session.execute(_replace(table, changed, before))


def _replace(table: Table, old: dict[str, Any], new: dict[str, Any]) -> Any:
    is_row = [table.columns[key.key] == old[key.key] for key in table.primary_key]
    changed = {name: value for name, value in new.items() if value != old[name]}
    return update(table).where(*is_row).values(changed)


def _other(value: Any, column: Column[Any]) -> Any:
    """Return a value that no other row has."""
    if value is None:
        return 10**6 if column.type.python_type is int else "x"
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 10**6
    if isinstance(value, str):
        return ("y" if value[:1] == "x" else "x") + value[1:]
    if isinstance(value, list):
        return [*value, {"x": "y"}]
    return {**value, "x": "y"}
