"""Retention: months are archived once their events have been kept for long enough.

Every replica tries once an hour; the lock of an archiver lets one of them work. The first round is
an hour after the start, when an update is complete: pods of the version before take events that are
only in files for lost.
"""

import asyncio
from datetime import UTC, datetime

import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.billing.archives import repository
from services.billing.archives.errors import ArchiveBusy
from services.billing.archives.service import archive, last_due
from services.billing.archives.store import ArchiveStore
from services.common.db.database import Database
from services.common.errors import ServiceError

LOOK_EVERY_S = 3600.0
"""How often months are archived."""

log = structlog.get_logger()


class ArchiveMetrics:
    """How much is archived."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._months = Gauge(
            "tollgate_billing_archived_months",
            "Months whose usage events are archived",
            registry=registry,
        )
        self._bytes = Gauge(
            "tollgate_billing_archived_bytes",
            "Size of the files of archived months",
            registry=registry,
        )

    async def measure(self, database: Database) -> None:
        """Count what is archived."""
        async with database.snapshot() as session:
            months, size = await repository.count_archived(session)
        self._months.set(months)
        self._bytes.set(size)


async def retain_forever(
    database: Database,
    store: ArchiveStore,
    *,
    keep_months: int | None,
    metrics: ArchiveMetrics,
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Archive the months that are due until cancelled; after a failure, try again.

    Args:
        keep_months: for how many months after its end a month stays; None archives nothing.
    """
    while True:
        try:
            await metrics.measure(database)
        except Exception as error:  # the next round tries again
            log.warning("archives_count_failed", error=type(error).__name__)
        await asyncio.sleep(every_s)
        if keep_months is not None:
            try:
                await retain(database, store, keep_months=keep_months, now=datetime.now(UTC))
            except Exception as error:  # the next round tries again
                log.warning("retention_failed", error=type(error).__name__)


async def retain(
    database: Database, store: ArchiveStore, *, keep_months: int, now: datetime
) -> None:
    """Archive the months that are due, oldest first; one that fails does not stop the others."""
    async with database.snapshot() as session:
        due = await repository.list_due(session, until=last_due(keep_months=keep_months, now=now))
    for period in due:
        try:
            done = await archive(database, store, period=period, keep_months=keep_months, now=now)
        except ArchiveBusy:
            return
        except ServiceError as error:
            log.error("archive_failed", period=period, error=error.detail)
        else:
            log.info("month_archived", period=period, requests=done.requests, bytes=done.bytes)
