"""Alembic's entry point."""

from services.auth.models import Base
from services.auth.openid import models as _openid  # noqa: F401 - adds its tables
from services.auth.providers import models as _providers  # noqa: F401 - adds its tables
from services.auth.sessions import models as _sessions  # noqa: F401 - adds its tables
from services.common.db.migrations import run_migrations

run_migrations(Base.metadata)
