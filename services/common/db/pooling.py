"""Spare two round trips to MySQL for each unit of work, a ping before it and a rollback after it.

SQLAlchemy's pool sends both for every use of a connection. They cost as much as the statement that
a short unit of work consists of.
"""

import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolResetState

PING_AFTER_S = 10.0
"""Seconds of idleness after which a network on the way may have dropped a connection silently."""

_RETURNED_AT = "tollgate_returned_at"


def spare_round_trips(engine: AsyncEngine) -> None:
    """Check connections of an aiomysql engine without asking the server, as long as that is safe.

    The engine must neither ping before use nor roll back after it.
    """
    event.listen(engine.sync_engine, "checkout", _check)
    event.listen(engine.sync_engine, "reset", _roll_back)


def _check(connection: Any, record: Any, _proxy: object) -> None:
    """Replace a connection that the server has closed.

    The event loop reads from idle connections, too, so it has seen the end of one, or the error
    that some servers send before.

    Raises:
        InvalidatePoolError: the connection is closed; all idle ones are replaced.
    """
    returned_at = record.info.pop(_RETURNED_AT, None)
    if returned_at is None:  # a new one
        return
    reader = connection.driver_connection._reader
    if reader is None or reader._eof or reader._buffer or reader.exception():
        raise InvalidatePoolError()
    if time.monotonic() - returned_at > PING_AFTER_S:
        try:
            connection.ping()
        except (connection.dbapi.Error, OSError) as error:
            raise InvalidatePoolError() from error


def _roll_back(connection: Any, record: Any, state: PoolResetState) -> None:
    """Roll back what a unit of work left open: most have committed.

    The server states with each result whether a transaction is open.
    """
    if not state.asyncio_safe:  # the garbage collector found it; it will be closed
        return
    if connection.driver_connection.get_transaction_status():
        connection.rollback()
    record.info[_RETURNED_AT] = time.monotonic()
