"""Archives: months whose usage events are in files, and what kills an archiver."""

from typing import Any

from sqlalchemy import func, select

from services.billing.archives.reading import Archives
from services.billing.archives.service import ArchiveRead, archive
from services.common.db.database import Database
from tests.integration.billing.months import AFTER, PERIOD


async def count(database: Database, model: Any, *where: Any) -> int:
    async with database.snapshot() as session:
        found = select(func.count()).select_from(model).where(*where)
        return await session.scalar(found) or 0


class Killed(BaseException):
    """What ends an archiver at once; nothing may catch it."""


async def archive_month(
    database: Database, archives: Archives, period: str = PERIOD, **options: Any
) -> ArchiveRead:
    given: dict[str, Any] = {"keep_months": None, "now": AFTER}
    return await archive(database, archives.store, period=period, **(given | options))


async def archive_until(database: Database, archives: Archives, step: str) -> None:
    """Archive the month; kill the archiver when it reports a step."""

    def kill(reached: str, events: int) -> None:
        if reached == step:
            raise Killed

    try:
        await archive_month(database, archives, on_progress=kill)
    except Killed:
        return
    raise AssertionError(f"it never came to {step}")
