"""Report rejected credentials to auth, which adds them to its audit log."""

import asyncio

import structlog

from services.common.errors import Unavailable
from services.common.identity.auth_client import AuthClient
from services.common.identity.rejections import RejectionLog

EVERY_S = 2.0

log = structlog.get_logger()


async def report_rejections(
    auth: AuthClient, rejections: RejectionLog, *, every_s: float = EVERY_S
) -> None:
    """Report rejected credentials to auth until cancelled; keep them while it is unavailable."""
    is_away = False
    while True:
        await asyncio.sleep(every_s)
        report = rejections.take()
        if report is None:
            continue
        try:
            await auth.report_rejections(report)
            is_away = False
        except Unavailable as error:
            rejections.put_back(report)
            if not is_away:
                log.warning("rejections_unreported", reason=error.detail)
            is_away = True
