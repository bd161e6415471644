"""Replicas of auth, and services that verify their tokens, in simulated time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from jose import jwt
from sqlalchemy import select

from services.auth.keys import KeyRing
from services.auth.models import PendingAuditEntry
from services.auth.signing.schedule import describe
from services.auth.signing.service import KeyKeeper, read_keys
from services.auth.signing.vault import Vault
from services.common.contracts import AUDIENCE
from services.common.db.database import Database
from services.common.identity.issuer_keys import IssuerKeys
from services.common.identity.tokens import TokenVerifier

ISSUER = "http://auth.test"
START = datetime(2026, 11, 22, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock:
    """The time of a simulation, in the forms that its users need."""

    def __init__(self) -> None:
        self.now = START

    def utc(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()


class Replica:
    """A replica of auth: its keys, and the key set that it publishes."""

    def __init__(self, database: Database, clock: Clock, **options: Any) -> None:
        self.ring = KeyRing(clock=clock.utc)
        self.vault = options.pop("vault", None) or Vault()
        self.keeper = KeyKeeper(database, self.vault, self.ring, clock=clock.utc, **options)
        self._clock = clock
        self._number = 0

    def issue(self, *, lifetime_s: int = 3600) -> bytes:
        """Return a new access token."""
        now = int(self._clock.seconds())
        self._number += 1
        claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + lifetime_s}
        claims |= {"sub": "ada", "client_id": "c", "scope": "predict", "jti": f"{self._number}"}
        return self.ring.sign(claims).encode()

    def respond(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=self.ring.document)


class Verifier:
    """A service that verifies tokens; it fetches keys from one of the replicas at a time.

    Args:
        extra_cache: how long a proxy before auth still answers with an old key set.
    """

    def __init__(
        self, replicas: Sequence[Replica], clock: Clock, *, extra_cache: timedelta = timedelta()
    ) -> None:
        self._replicas = replicas
        self._clock = clock
        self._extra_cache = extra_cache
        self._cached: tuple[datetime, httpx.Response] | None = None
        self._fetches = 0
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._respond))
        self.keys = IssuerKeys(http, ISSUER, clock=clock.seconds)
        self.tokens = TokenVerifier(self.keys, issuer=ISSUER, clock=clock.seconds, max_cached=1)
        self.keys.on_withdrawal = self.tokens.forget

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if self._cached is None or self._clock.now - self._cached[0] >= self._extra_cache:
            replica = self._replicas[self._fetches % len(self._replicas)]
            self._fetches += 1
            self._cached = (self._clock.now, replica.respond(request))
        document = self._cached[1].json()
        return httpx.Response(200, json=document)


async def acts(database: Database) -> list[tuple[str, str | None]]:
    """Return the recorded acts with their actors, oldest first."""
    in_order = select(PendingAuditEntry).order_by(PendingAuditEntry.id)
    async with database.snapshot() as session:
        return [(each.action, each.actor) for each in await session.scalars(in_order)]


async def states(database: Database, clock: Clock) -> list[str]:
    """Return the states of all keys, oldest first."""
    stored = await read_keys(database)
    return [describe(key, stored, now=clock.now) for key in stored]


def kid(token: bytes) -> str:
    """Return the id of the key that signed a token."""
    return str(jwt.get_unverified_header(token.decode())["kid"])
