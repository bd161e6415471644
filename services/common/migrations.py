"""Migrations on MySQL and SQLite alike: run once at a time, taken up after a death, checked.

That old and new pods share a schema is said in docs/adr/0011.
"""

import asyncio
from pathlib import Path
from typing import Any, Literal

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pymysql.err import MySQLError
from sqlalchemy import MetaData, event, inspect, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

from services.common.db import Database
from services.common.engines import new_engine
from services.common.errors import Unavailable
from services.common.settings import exit_with_error, prepare_folder

_MIGRATION_LOCK_S = 120
_IS_DONE = {1050, 1060, 1061, 1051, 1091}
"""MySQL's errors for a table, column or index to be made that is there, or dropped that is not."""


def migrate(url: str, scripts: Path) -> None:
    """Bring a database to the newest revision under `scripts`; callers wait for one another.

    A database that a newer version has migrated further is left as it is.

    Blocking: call it before the event loop runs, or in a thread.
    """
    config = _config(scripts)
    config.attributes["url"] = url
    command.upgrade(config, "head")


def prepare_database_folder(url: str, *, variable: str) -> None:
    """Make the folder of a SQLite file; other databases need none.

    Raises:
        SystemExit: it cannot be made or written; one line names the variable.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        prepare_folder(Path(parsed.database).parent, variable=variable)


def migrate_or_exit(url: str, scripts: Path, *, variable: str) -> None:
    """`migrate`, for a command line.

    Raises:
        SystemExit: the database cannot be migrated; one line names the variable.
    """
    try:
        migrate(url, scripts)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        exit_with_error(f"{variable}: the database cannot be migrated: {cause}")


def run_migrations(metadata: MetaData) -> None:
    """The body of every `migrations/env.py`."""
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
            transactional_ddl=True if not mysql_server else None,  # all of it or nothing
        )
        found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in _revisions(context.script):
            return
        with context.begin_transaction():
            context.run_migrations()
            if mysql_server:
                _check_columns(connection, metadata)

    async def run() -> None:
        # SQLite's lock is taken before the revision is read: every transaction begins with it.
        engine = new_engine(url, sqlite={"timeout": _MIGRATION_LOCK_S}, mysql={})
        if engine.dialect.name == "mysql":
            event.listen(engine.sync_engine, "do_execute", _pass_over_what_is_done)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(upgrade)
                await connection.commit()
        finally:
            await engine.dispose()

    asyncio.run(run())


def _pass_over_what_is_done(
    cursor: DBAPICursor, statement: str, parameters: Any, _context: object
) -> Literal[True]:
    """Execute a statement of a migration, unless an earlier run of it did that and then died.

    MySQL commits at every change of a table, so that a migration may end between two of them.
    """
    try:
        cursor.execute(statement, parameters)
    except MySQLError as error:
        if error.args[0] not in _IS_DONE:
            raise
    return True


def _check_columns(connection: Connection, metadata: MetaData) -> None:
    """Tell a table that was made by an earlier run from one that is somebody else's.

    Raises:
        InvalidRequestError: a table lacks columns; the migration stays unfinished.
    """
    for name, table in metadata.tables.items():
        there = {column["name"] for column in inspect(connection).get_columns(name)}
        if missing := sorted(set(table.columns.keys()) - there):
            raise InvalidRequestError(
                f"the table {name!r} lacks {', '.join(missing)}: it is not of this service"
            )


def _config(scripts: Path) -> Config:
    """Alembic's own, in which a `%` begins a reference."""
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config


def _revisions(scripts: ScriptDirectory) -> set[str]:
    return {script.revision for script in scripts.walk_revisions()}


class SchemaCheck:
    """Readiness: the database answers and has what this code was written for.

    A revision that is not known here was made by a newer version, whose migrations leave what the
    version before it needs: the two serve side by side during an update, and after one is undone.
    """

    def __init__(self, database: Database, scripts: Path) -> None:
        known = ScriptDirectory.from_config(_config(scripts))
        self._older = {None, *_revisions(known)} - {known.get_current_head()}
        self._database = database

    async def __call__(self) -> str | None:
        """None when all is well, else what is not."""
        try:
            async with self._database.snapshot() as session:
                connection = await session.connection()
                found = await connection.run_sync(
                    lambda sync: MigrationContext.configure(sync).get_current_revision()
                )
        except Unavailable as error:
            return error.detail
        return "The database is not migrated to this version." if found in self._older else None
