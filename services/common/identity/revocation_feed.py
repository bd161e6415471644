"""Follow auth's revocations, so that they take effect within seconds."""

import asyncio
import time

import structlog

from services.common.errors import Unavailable
from services.common.identity.auth_client import AuthClient
from services.common.identity.tokens import TokenVerifier

EVERY_S = 1.0
"""The shortest time between two requests that find nothing new."""

log = structlog.get_logger()


async def follow_revocations(auth: AuthClient, verifier: TokenVerifier) -> None:
    """Apply revocations as auth publishes them, until cancelled.

    While auth is unavailable, the verifier keeps what it knows: API keys for 15 minutes, and tokens
    until they expire.
    """
    after, is_away = 0, False
    while True:
        asked_at = time.monotonic()
        try:
            page = await auth.list_revocations(after=after)
        except Unavailable as error:
            if not is_away:
                log.warning("revocations_unavailable", reason=error.detail)
            is_away = True
            await asyncio.sleep(EVERY_S)
            continue
        if is_away:
            log.info("revocations_available")
        is_away = False
        if page.last < after:
            log.warning("revocations_restarted", before=after, last=page.last)
            verifier.forget_all()
        after = page.last
        await verifier.revoke(page.revocations)
        if not page.revocations:
            await asyncio.sleep(max(EVERY_S - (time.monotonic() - asked_at), 0))
