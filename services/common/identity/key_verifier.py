"""Turn API keys into callers by asking auth; remember the answers for when it is unavailable."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from services.common.contracts import KeyIntrospection
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.api_keys import is_api_key
from services.common.identity.caller import Caller
from services.common.identity.limits import read_limits
from services.common.identity.revocations import Revocations

KEYS_UNAVAILABLE = "API keys cannot be verified right now; retry in 1 s."

CONFIRM_EVERY_S = 300
"""How often auth is asked again about a key in use, which also records the use."""
KEEP_S = 900
"""How long a key works without auth, from when auth last answered."""
RETRY_S = 10
"""How long auth counts as unavailable after it did not answer."""
REFUSED_S = 5
"""How long a refusal is repeated without asking again."""
ASKING_AT_ONCE = 8
MAX_ASKING = 256
"""Keys that may wait for an answer; further ones get 503."""
MAX_OVERTAKEN = 3
MAX_REMEMBERED = 1 << 16
MAX_REFUSED = 1 << 13

_LONGEST_S = 1 << 53

V = TypeVar("V")


class _Confirmed(NamedTuple):
    """Auth's last answer about a key, and when it came; the caller expires when the key does."""

    caller: Caller
    at: float


class KeyVerifier:
    """Asks auth about each key once, and again every few minutes while it is in use.

    Args:
        introspect: asks auth about a key; returns None if it is not active, and raises Unavailable
            if auth does not answer.
        revocations: those that this process knows.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        introspect: Callable[[bytes], Awaitable[KeyIntrospection | None]],
        *,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._introspect = introspect
        self._revocations = revocations or Revocations()
        self._clock = clock
        self._confirmed: dict[bytes, _Confirmed] = {}
        self._refused_until: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}
        self._turns = asyncio.Semaphore(ASKING_AT_ONCE)
        self._away_until = 0.0
        self.contact_at = float("-inf")
        """When auth last reported what was revoked: until then, all that it confirmed is valid."""

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
        for _ in range(MAX_OVERTAKEN):
            caller = await asyncio.shield(self._asking.get(digest) or self._start(key, digest))
            if digest in self._confirmed:  # otherwise the key was revoked at the last moment
                return caller
        raise Unavailable(KEYS_UNAVAILABLE)

    def _start(self, key: bytes, digest: bytes) -> asyncio.Task[Caller]:
        if len(self._asking) >= MAX_ASKING:
            raise Unavailable(KEYS_UNAVAILABLE)
        asking = asyncio.create_task(self._ask(key, digest))
        self._asking[digest] = asking
        asking.add_done_callback(lambda done: self._finish(done, digest))
        return asking

    def _finish(self, asking: asyncio.Task[Caller], digest: bytes) -> None:
        self._asking.pop(digest, None)
        if not asking.cancelled():
            asking.exception()  # every request that waited for it may have gone

    async def _ask(self, key: bytes, digest: bytes) -> Caller:
        if self._clock() < self._away_until and digest in self._confirmed:
            return self._recall(digest)
        try:
            async with self._turns:
                caller = await self._introspect_now(key)
        except Unavailable:
            self._away_until = self._clock() + RETRY_S
            return self._recall(digest)
        if caller is None:
            self._confirmed.pop(digest, None)
            _remember(self._refused_until, digest, self._clock() + REFUSED_S, MAX_REFUSED)
            raise Unauthenticated()
        confirmed = _Confirmed(caller, self._clock())
        _remember(self._confirmed, digest, confirmed, MAX_REMEMBERED)
        return self._until(confirmed.caller, self._clock() + CONFIRM_EVERY_S)

    async def _introspect_now(self, key: bytes) -> Caller | None:
        """Return the caller of a key, by an answer that no revocation has overtaken.

        Raises:
            Unavailable: auth does not answer, or each answer was overtaken.
        """
        for _ in range(MAX_OVERTAKEN):
            before = self._revocations.number
            found = await self._introspect(key)
            caller = None if found is None else _as_caller(found)
            if caller is None or not self._revocations.names_since(before, caller):
                return caller
        raise Unavailable(KEYS_UNAVAILABLE)

    def forget(self, is_outdated: Callable[[Caller], bool]) -> None:
        """Forget the keys that were revoked, or of which auth now says something else."""
        outdated = [
            digest for digest, (caller, _) in self._confirmed.items() if is_outdated(caller)
        ]
        for digest in outdated:
            del self._confirmed[digest]

    def _recall(self, digest: bytes) -> Caller:
        """Return the caller of a key while auth is unavailable.

        Raises:
            Unauthenticated: the key has expired.
            Unavailable: auth never confirmed the key, or has been unavailable for too long.
        """
        confirmed, now = self._confirmed.get(digest), self._clock()
        if confirmed is None:
            raise Unavailable(KEYS_UNAVAILABLE)
        kept_until = max(confirmed.at, self.contact_at) + KEEP_S
        if now >= kept_until:
            raise Unavailable(KEYS_UNAVAILABLE)
        if now >= confirmed.caller.expires_at:
            raise Unauthenticated()
        return self._until(confirmed.caller, min(kept_until, now + RETRY_S))

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
