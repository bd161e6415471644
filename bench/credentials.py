"""Benchmarks of credentials: checking those that are known, and hearing of revocations."""

import asyncio
import time
import tracemalloc
import uuid

from pydantic import SecretStr

from bench.figures import Figure
from harness.issuer import Issuer
from harness.services import ServiceProcesses
from services.auth.revocations.service import publish
from services.common.contracts import KeyIntrospection
from services.common.db.database import Database
from services.common.http.client import http_client
from services.common.identity.api_keys import new_api_key
from services.common.identity.auth_client import AuthClient
from services.common.identity.key_verifier import KeyVerifier
from services.common.identity.revocation_feed import follow_revocations
from services.common.identity.revocations import Revocations
from services.common.identity.tokens import TokenVerifier, token_digest
from services.common.settings import local_client

REVOCATIONS = 10_000
_AT_ONCE = 500
_CHECKS = 200_000
_ROUNDS = 5
_PATIENCE_S = 60.0


async def credentials(platform: ServiceProcesses) -> list[Figure]:
    """Measure a check of known credentials, and how soon revocations reach a verifier."""
    return [*await _checks(), *await _revocations(platform)]


async def _checks() -> list[Figure]:
    issuer = Issuer("http://auth")
    verifier = TokenVerifier(issuer, issuer=issuer.url, api_keys=KeyVerifier(_introspect))
    token, key = issuer.sign(), new_api_key("live").encode()
    figures = []
    for name, given in (("token", token), ("API key", key)):
        await verifier.verify(given)
        best_s = min(_check_often(verifier, given) for _ in range(_ROUNDS))
        figures.append(
            Figure(
                f"check of a known {name}, in process",
                best_s / _CHECKS * 1e6,
                "µs",
                f"digest and look-up of {len(given)} bytes; best of {_ROUNDS}",
                at_most=2.0,
            )
        )
    return figures


def _check_often(verifier: TokenVerifier, given: bytes) -> float:
    """Return the CPU seconds that the checks take, so that other work does not count."""
    began = time.process_time()
    for _ in range(_CHECKS):
        verifier.recall(token_digest(given))
    return time.process_time() - began


async def _introspect(key: bytes) -> KeyIntrospection:
    return KeyIntrospection(
        active=True,
        token_type="api_key",  # noqa: S106
        sub=str(uuid.uuid4()),
        client_id=str(uuid.uuid4()),
        scope="predict",
        iat=0,
        mode="live",
    )


async def _revocations(platform: ServiceProcesses) -> list[Figure]:
    client_id, secret = local_client(platform.home)
    database = Database(platform.environment["AUTH_DATABASE_URL"])
    try:
        async with http_client() as http:
            auth = AuthClient(
                http,
                auth_url=platform.urls["auth"],
                client_id=client_id,
                client_secret=SecretStr(secret),
            )
            live = Revocations()
            following = asyncio.create_task(_follow(auth, live))
            for _ in range(REVOCATIONS // _AT_ONCE):
                async with database.transaction() as session:
                    await publish(session, *(("user", str(uuid.uuid4())) for _ in range(_AT_ONCE)))
            published = time.perf_counter()
            await following
            late_s = max(time.perf_counter() - published, 0.0)
            tracemalloc.start()
            await _follow(auth, Revocations())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    finally:
        await database.close()
    return [
        Figure(
            f"{REVOCATIONS:,} revocations, from the last act to the verifier",
            late_s,
            "s",
            f"published in transactions of {_AT_ONCE}",
            at_most=5.0,
        ),
        Figure(
            f"{REVOCATIONS:,} revocations, memory of a verifier",
            peak / 1e6,
            "MB",
            "peak of what it allocates while it reads them",
            at_most=10.0,
        ),
    ]


async def _follow(auth: AuthClient, revocations: Revocations) -> None:
    """Read the revocations from the first, until all have arrived."""
    verifier = TokenVerifier(Issuer(), issuer="http://auth", revocations=revocations)
    following = asyncio.create_task(follow_revocations(auth, verifier))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while revocations.number < REVOCATIONS:  # noqa: ASYNC110  # they have no event
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.wait([following])
