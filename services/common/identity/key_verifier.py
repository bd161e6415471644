"""Turn API keys into callers by asking auth, and remember the answers for when auth is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from services.common.contracts import KeyIntrospection
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.api_keys import is_api_key
from services.common.identity.auth_client import KEYS_UNAVAILABLE
from services.common.identity.caller import Caller
from services.common.identity.limits import read_limits

CONFIRM_EVERY_S = 300
"""How often auth is asked again about a key in use, which also records the use."""
KEEP_S = 900
"""How long a key works without auth after auth last confirmed it."""
RETRY_S = 10
"""How long auth counts as away after it did not answer."""
REFUSED_S = 5
"""How long a refusal is repeated without asking again."""
ASKING_AT_ONCE = 8
MAX_ASKING = 256
"""Keys that may wait for an answer; further ones get 503."""
MAX_REMEMBERED = 1 << 16
MAX_REFUSED = 1 << 13

_LONGEST_S = 1 << 53

V = TypeVar("V")


class _Confirmed(NamedTuple):
    """What auth last said about a key, and when; the caller expires when the key does."""

    caller: Caller
    at: float


class KeyVerifier:
    """Asks auth about each key once, and again every few minutes while it is in use.

    Args:
        introspect: asks auth about a key; returns None if it is not active, and raises Unavailable
            if auth does not answer.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        introspect: Callable[[bytes], Awaitable[KeyIntrospection | None]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._introspect = introspect
        self._clock = clock
        self._confirmed: dict[bytes, _Confirmed] = {}
        self._refused_until: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}
        self._turns = asyncio.Semaphore(ASKING_AT_ONCE)
        self._away_until = 0.0

    async def verify(self, key: bytes, digest: bytes) -> Caller:
        """Return the caller of an API key, which is to be verified again when it expires.

        Requests that need the same key at once share one call to auth.

        Args:
            digest: the key's digest, under which it is remembered.

        Raises:
            Unauthenticated: the key is malformed, or not active.
            Unavailable: auth does not answer, and has not confirmed the key recently.
        """
        if not is_api_key(key) or self._clock() < self._refused_until.get(digest, 0.0):
            raise Unauthenticated()
        asking = self._asking.get(digest)
        if asking is None:
            if len(self._asking) >= MAX_ASKING:
                raise Unavailable(KEYS_UNAVAILABLE)
            asking = asyncio.create_task(self._ask(key, digest))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._finish(done, digest))
        return await asyncio.shield(asking)

    def _finish(self, asking: asyncio.Task[Caller], digest: bytes) -> None:
        self._asking.pop(digest, None)
        if not asking.cancelled():
            asking.exception()  # every request that waited for it may have gone

    async def _ask(self, key: bytes, digest: bytes) -> Caller:
        if self._clock() < self._away_until and digest in self._confirmed:
            return self._recall(digest)
        try:
            async with self._turns:
                found = await self._introspect(key)
        except Unavailable:
            self._away_until = self._clock() + RETRY_S
            return self._recall(digest)
        if found is None:
            self._confirmed.pop(digest, None)
            _remember(self._refused_until, digest, self._clock() + REFUSED_S, MAX_REFUSED)
            raise Unauthenticated()
        confirmed = _Confirmed(_as_caller(found), self._clock())
        _remember(self._confirmed, digest, confirmed, MAX_REMEMBERED)
        return self._until(confirmed.caller, self._clock() + CONFIRM_EVERY_S)

    def _recall(self, digest: bytes) -> Caller:
        """Return the caller of a key while auth is away.

        Raises:
            Unauthenticated: the key has expired.
            Unavailable: auth never confirmed the key, or too long ago.
        """
        confirmed, now = self._confirmed.get(digest), self._clock()
        if confirmed is None or now >= confirmed.at + KEEP_S:
            raise Unavailable(KEYS_UNAVAILABLE)
        if now >= confirmed.caller.expires_at:
            raise Unauthenticated()
        return self._until(confirmed.caller, min(confirmed.at + KEEP_S, now + RETRY_S))

    def _until(self, caller: Caller, moment: float) -> Caller:
        return replace(caller, expires_at=min(caller.expires_at, int(moment)))


def _as_caller(found: KeyIntrospection) -> Caller:
    try:
        limits = read_limits(
            models=found.models, allowed_ips=found.allowed_ips, is_test=found.mode == "test"
        )
    except ValueError as error:  # never accept a key whose limits are unknown
        raise Unavailable(KEYS_UNAVAILABLE) from error
    return Caller(
        account=found.sub,
        client_id=found.client_id,
        scopes=frozenset(found.scope.split()),
        expires_at=_LONGEST_S if found.exp is None else found.exp,
        limits=limits,
    )


def _remember(memory: dict[bytes, V], digest: bytes, value: V, limit: int) -> None:
    """Store a value as the newest; forget the oldest beyond the limit."""
    memory.pop(digest, None)
    memory[digest] = value
    if len(memory) > limit:
        del memory[next(iter(memory))]
