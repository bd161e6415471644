"""Publish revocations, which the other services follow."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Revocation
from services.auth.revocations import repository
from services.common.contracts import RevocationKind, RevocationPage, RevocationRead
from services.common.db.database import Database
from services.common.identity.tokens import MAX_LIFETIME_S

PAGE = 500
"""Revocations in a response: more would take the reader's event loop too long to parse."""
LOOK_EVERY_S = 0.5
"""How often a waiting request looks for new revocations, which other processes may publish."""
_KEPT = timedelta(seconds=MAX_LIFETIME_S)
"""No token lives longer, and no process remembers an API key for longer."""


async def publish(
    session: AsyncSession,
    *revoked: tuple[RevocationKind, str],
    account: str | None = None,
    after: datetime | None = None,
    issued_before: datetime | None = None,
    until: datetime | None = None,
) -> datetime:
    """Revoke the credentials of users, clients and so on, in the caller's transaction.

    Args:
        revoked: each the kind and id of what the credentials belong to.
        account: the only account whose tokens are revoked; default all.
        after: the last `issued_before`. Tokens that were issued since then in the same second
            date from it, and are revoked, too.
        issued_before: tokens issued from then on stay valid; default the next full second, because
            tokens date from full seconds.
        until: when the last of these tokens has expired by itself; by default after the longest
            lifetime.

    Returns:
        `issued_before`.
    """
    now = datetime.now(UTC)
    if issued_before is None:
        issued_before = (max(now, after or now) + timedelta(seconds=1)).replace(microsecond=0)
    first = await repository.take_numbers(session, count=len(revoked))
    await repository.add_revocations(
        session,
        [
            Revocation(
                sequence=number,
                kind=kind,
                target_id=target_id,
                account_id=account,
                issued_before=issued_before,
                until=until or now + _KEPT,
            )
            for number, (kind, target_id) in enumerate(revoked, first)
        ],
    )
    return issued_before


async def is_token_revoked(session: AsyncSession, *, token_id: str) -> bool:
    """Return whether a single access token was revoked."""
    return await repository.is_token_revoked(session, token_id=token_id)


async def find_last_revocation(
    session: AsyncSession, *, kind: RevocationKind, target_id: str, account: str
) -> datetime | None:
    """Return the `issued_before` of the newest revocation for an account; None if none is kept."""
    return await repository.find_last_revocation(
        session, kind=kind, target_id=target_id, account=account
    )


async def delete_expired_revocations(session: AsyncSession, *, now: datetime) -> None:
    """Delete the revocations whose tokens have all expired."""
    await repository.delete_expired(session, now=now)


class RevocationFeed:
    """Reads the revocations; requests that wait for new ones share their looks at the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._last = 0

    async def read(self, *, after: int, wait_s: float) -> RevocationPage:
        """Return the revocations with a number above `after`, or wait for the first of them.

        If `after` is beyond the last number, the database was restored, and the page begins anew.

        Raises:
            Unavailable: the database is unavailable.
        """
        deadline = time.monotonic() + wait_s
        while await self._find_last() == after and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)  # other processes publish too
        async with self._database.snapshot() as session:
            last = await repository.find_last(session)
            found = await repository.list_revocations(
                session,
                after=after if after <= last else 0,
                last=last,
                now=datetime.now(UTC),
                limit=PAGE,
            )
        return RevocationPage(
            last=found[-1].sequence if len(found) == PAGE else last,
            revocations=[
                RevocationRead.model_validate(
                    {
                        "kind": row.kind,
                        "id": row.target_id,
                        "account": row.account_id,
                        "issued_before": row.issued_before,
                        "until": row.until,
                    }
                )
                for row in found
            ],
        )

    async def _find_last(self) -> int:
        """Return the last number as of a moment ago."""
        async with self._looking:
            if time.monotonic() - self._looked_at >= LOOK_EVERY_S / 2:
                async with self._database.snapshot() as session:
                    self._last = await repository.find_last(session)
                self._looked_at = time.monotonic()
            return self._last
