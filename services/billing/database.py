"""The database of the billing service."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from services.common.db.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


AppDatabase = Annotated[Database, Depends(_database)]
"""For endpoints that write, with `in_transaction`: a dependency could not be retried."""
