"""Alembic's entry point."""

from services.billing.archives import models as _archives  # noqa: F401 - adds its tables
from services.billing.corrections import models as _corrections  # noqa: F401 - adds its tables
from services.billing.invoices import models as _invoices  # noqa: F401 - adds its tables
from services.billing.models import Base
from services.billing.plans import models as _plans  # noqa: F401 - adds its tables
from services.billing.sources import models as _sources  # noqa: F401 - adds its tables
from services.common.db.migrations import run_migrations

run_migrations(Base.metadata)
