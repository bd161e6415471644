"""Alembic's entry point."""

from services.auth.models import Base
from services.common.db.migrations import run_migrations

run_migrations(Base.metadata)
