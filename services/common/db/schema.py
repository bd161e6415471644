"""Check that a database's schema is new enough, without importing Alembic.

A service checks its schema at each probe but never migrates, and Alembic takes a tenth of a
second to import.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from services.common.db.database import Database
from services.common.errors import Unavailable


class SchemaCheck:
    """Readiness check: the database is available and its schema is new enough.

    An unknown revision comes from a newer version. Its migrations keep what this version needs,
    because both serve side by side during an update and after a rollback.

    Args:
        scripts: the service's folder of migrations.
    """

    def __init__(self, database: Database, scripts: Path) -> None:
        self._older = {None, *list_revisions(scripts)[:-1]}
        self._database = database

    async def __call__(self) -> str | None:
        """Return None if the check passes, otherwise the reason."""
        try:
            async with self._database.snapshot() as session:
                connection = await session.connection()
                revision = await connection.run_sync(_read_revision)
        except Unavailable as error:
            return error.detail
        return "The database is not migrated to this version." if revision in self._older else None


def list_revisions(scripts: Path) -> list[str]:
    """Return the revisions of a folder of migrations, oldest first, from the names of its files."""
    files = (scripts / "versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
