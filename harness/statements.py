"""Note the statements that a service sends to its database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import event

from services.common.db.database import Database


class Statement(NamedTuple):
    """A statement as the driver got it."""

    sql: str
    parameters: Any


def _every(_statement: Statement) -> bool:
    return True


@contextmanager
def noted_statements(
    database: Database, only: Callable[[Statement], bool] = _every
) -> Iterator[list[Statement]]:
    """Note the statements that a database gets during the block, without its transactions' ends.

    Args:
        only: says which statements to note; default all.
    """
    noted: list[Statement] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        statement = Statement(sql, parameters)
        if not sql.startswith("BEGIN") and only(statement):
            noted.append(statement)

    for engine in database.engines:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        for engine in database.engines:
            event.remove(engine.sync_engine, "before_cursor_execute", note)
