"""`GET /revocations`: what the other services must no longer accept."""

from typing import Annotated

from fastapi import Depends, Query, Request

from services.auth.callers import check_active
from services.auth.revocations.service import RevocationFeed
from services.common.contracts import RevocationPage
from services.common.db.database import Database
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

router = new_router(tag="revocations")

WAIT_S = 3.0
"""How long a request waits for a revocation. A dead connection goes unnoticed for as long."""


async def _feed(request: Request) -> RevocationFeed:
    feed: RevocationFeed = request.app.state.revocation_feed
    return feed


@router.get(
    "/revocations",
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def list_revocations(
    request: Request,
    caller: Annotated[Caller, Depends(RequireScope("billing:write"))],
    feed: Annotated[RevocationFeed, Depends(_feed)],
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> RevocationPage:
    """Return the revocations after a number, in order; if nothing is new, wait for a few seconds.

    A token is revoked if an entry names its `jti`, its account (`sub`), its user (`user_id`) or its
    client, and it was issued (`iat`) before the entry's `issued_before`. An entry of a user may be
    limited to the tokens for one `account`. What is known about an API
    key is outdated if an entry names the key or its account. After `until`, an entry is no longer
    needed. Continue with the response's `last`; if that is lower than `after`, the numbers have
    begun anew, and nothing that was verified before should be trusted.
    """
    database: Database = request.app.state.database
    async with database.snapshot() as session:
        await check_active(session, caller=caller)
    return await feed.read(after=after, wait_s=WAIT_S)
