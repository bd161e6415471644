"""Database migrations on MySQL and SQLite: serialized, resumable after a crash, verified.

docs/adr/0011 explains how old and new pods share a schema.
"""

import asyncio
from pathlib import Path
from typing import Any, Literal

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from pymysql.err import MySQLError
from sqlalchemy import MetaData, event, inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

from services.common.db.engine import new_engine
from services.common.settings import exit_with_error

_MIGRATION_LOCK_S = 120
_ALREADY_DONE = {1050, 1060, 1061, 1051, 1091}
"""MySQL errors for creating an existing table, column or index, or dropping a missing one."""


def migrate(url: str, scripts: Path) -> None:
    """Migrate a database to the newest revision under `scripts`; concurrent calls are serialized.

    A database that a newer version has already migrated further is left unchanged.

    Blocking: call it before the event loop runs, or in a thread.
    """
    config = _config(scripts)
    config.attributes["url"] = url
    command.upgrade(config, "head")


def migrate_or_exit(url: str, scripts: Path, *, variable: str) -> None:
    """Run `migrate` for a command line.

    Raises:
        SystemExit: the database cannot be migrated; one line names the variable.
    """
    try:
        migrate(url, scripts)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"{variable}: cannot migrate the database: {cause}")


def run_migrations(metadata: MetaData) -> None:
    """Run the migrations; this is the body of every `migrations/env.py`."""
    url: str = context.config.attributes["url"]

    def upgrade(connection: Connection) -> None:
        mysql_server = connection.dialect.name == "mysql"
        if mysql_server:
            lock = {"name": "tollgate_migration", "seconds": _MIGRATION_LOCK_S}
            if connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), lock) != 1:
                raise RuntimeError("another migration holds the lock")
            connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=not mysql_server,
            compare_type=True,
            transactional_ddl=True if not mysql_server else None,  # all or nothing
        )
        revision = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in context.script.walk_revisions()}
        if revision is not None and revision not in known:
            return
        with context.begin_transaction():
            context.run_migrations()
            if mysql_server:
                _check_columns(connection, metadata)

    async def run() -> None:
        # On SQLite every transaction takes the write lock first, so before reading the revision.
        engine = new_engine(url, sqlite={"timeout": _MIGRATION_LOCK_S}, mysql={})
        if engine.dialect.name == "mysql":
            event.listen(engine.sync_engine, "do_execute", _skip_if_done)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(upgrade)
                await connection.commit()
        finally:
            await engine.dispose()

    asyncio.run(run())


def _skip_if_done(
    cursor: DBAPICursor, statement: str, parameters: Any, _context: object
) -> Literal[True]:
    """Execute a migration's statement unless an earlier, interrupted run already did.

    MySQL commits after each schema change, so a migration can be interrupted between two of them.
    """
    try:
        cursor.execute(statement, parameters)
    except MySQLError as error:
        if error.args[0] not in _ALREADY_DONE:
            raise
    return True


def _check_columns(connection: Connection, metadata: MetaData) -> None:
    """Check that tables that already existed belong to this service, not to other software.

    Raises:
        InvalidRequestError: a table lacks columns; the migration stays unfinished.
    """
    for name, table in metadata.tables.items():
        existing = {column["name"] for column in inspect(connection).get_columns(name)}
        if missing := sorted(set(table.columns.keys()) - existing):
            raise InvalidRequestError(
                f"table {name!r} lacks {', '.join(missing)}: it does not belong to this service"
            )


def _config(scripts: Path) -> Config:
    """Return Alembic's configuration, in which `%` must be escaped."""
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config
