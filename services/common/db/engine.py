"""Create SQLAlchemy engines for MySQL and SQLite, including TLS and connection setup."""

import ssl
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.common.db.sqlite import connect_sqlite
from services.common.settings import prepare_folder

_CA = "ssl_ca"


def new_engine(
    url: str, *, sqlite: dict[str, Any], mysql: dict[str, Any], **options: Any
) -> AsyncEngine:
    """Return an engine that enforces TLS if the URL requires it; it connects on first use.

    Args:
        sqlite: arguments of a SQLite connection.
        mysql: arguments of a MySQL connection, other than TLS.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        arguments = sqlite | {"async_creator_fn": connect_sqlite}
        engine = create_async_engine(parsed, connect_args=arguments, **options)
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    tls = tls_context(parsed)
    plain = parsed.difference_update_query([_CA])
    engine = create_async_engine(plain, connect_args=mysql | {"ssl": tls}, **options)
    if tls is not None:
        event.listen(engine.sync_engine, "connect", _refuse_plain_text)
    return engine


def prepare_database_folder(url: str, *, variable: str) -> None:
    """Create the folder of a SQLite database; other databases need none.

    Raises:
        SystemExit: it cannot be created or is not writable; one line names the variable.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        prepare_folder(Path(parsed.database).parent, variable=variable)


def tls_context(url: URL) -> ssl.SSLContext | None:
    """Return a TLS context that trusts the certificates in the URL's `ssl_ca` file, if any.

    aiomysql needs a context, but a URL can only contain a file name.

    Raises:
        OSError: the file cannot be read or contains no certificate.
    """
    ca_file = url.query.get(_CA)
    return None if ca_file is None else ssl.create_default_context(cafile=str(ca_file))


def _refuse_plain_text(connection: Any, _record: object) -> None:
    """Refuse an unencrypted connection: aiomysql falls back to it if the server lacks TLS."""
    if not connection.driver_connection._secure:
        connection.close()
        raise OperationalError("", None, ConnectionError("the database server offers no TLS"))


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver sends BEGIN too late; see _begin_sqlite
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("tollgate_read_only", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
