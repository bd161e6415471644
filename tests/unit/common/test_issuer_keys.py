"""The issuer's published keys: rarely fetched, kept during outages, dropped when withdrawn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from harness.issuer import ISSUER, KEY_ID, Issuer
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.issuer_keys import IssuerKeys
from services.common.identity.tokens import TokenVerifier, token_digest

OURS, OTHER = Issuer(), Issuer()


class Published:
    """An issuer behind a transport: the keys it publishes, and the number of requests."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [OURS.jwk()]
        self.broken: Callable[[], httpx.Response] | None = None
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{ISSUER}/.well-known/jwks.json"
        self.asked += 1
        return self.broken() if self.broken else httpx.Response(200, json={"keys": self.keys})


class TestIssuerKeys:
    @pytest.fixture
    def published(self) -> Published:
        return Published()

    @pytest.fixture
    async def http(self, published: Published) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(published)) as client:
            yield client

    async def test_concurrent_requests_fetch_the_keys_once(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        keys = IssuerKeys(http, ISSUER)

        found = await asyncio.gather(*(keys.find(KEY_ID) for _ in range(20)))

        assert all(found)
        assert published.asked == 1

    async def test_forged_ids_do_not_flood_the_issuer(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        keys = IssuerKeys(http, ISSUER)
        await keys.find(KEY_ID)

        found = await asyncio.gather(*(keys.find(f"forged {n}") for n in range(50)))

        assert found == [None] * 50
        assert published.asked == 1

    async def test_a_new_key_is_found_after_the_cooldown(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        keys = IssuerKeys(http, ISSUER, cooldown_s=0)
        await keys.find(KEY_ID)
        published.keys.append(OTHER.jwk(kid="key-2"))

        assert await keys.find("key-2") is not None
        assert await keys.find(KEY_ID) is not None

    async def test_withdrawing_a_key_invalidates_cached_tokens(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        keys = IssuerKeys(http, ISSUER, cooldown_s=0, max_age_s=0)
        verifier = TokenVerifier(keys, issuer=ISSUER)
        keys.on_withdrawal = verifier.forget
        token = OURS.sign()
        await verifier.verify(token)
        published.keys = [OTHER.jwk(kid="key-2")]

        await keys.refresh()

        assert verifier.recall(token_digest(token)) is None
        with pytest.raises(Unauthenticated):
            await verifier.verify(token)

    async def test_cached_keys_are_used_while_the_issuer_is_unreachable(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        keys = IssuerKeys(http, ISSUER, cooldown_s=0, max_age_s=0)
        await keys.find(KEY_ID)

        for broken in (
            lambda: httpx.Response(500),
            lambda: httpx.Response(200, content=b"{"),
            lambda: httpx.Response(200, json={"keys": [{"kty": "oct"}]}),
            lambda: httpx.Response(200, json=[1]),
            lambda: httpx.Response(302, headers={"Location": "http://evil.test"}),
        ):
            published.broken = broken
            assert await keys.find(KEY_ID) is not None

    async def test_a_key_that_could_not_be_fetched_may_be_new_so_it_is_not_refused(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        now = 0.0
        keys = IssuerKeys(http, ISSUER, clock=lambda: now)
        await keys.find(KEY_ID)
        published.keys.append(OTHER.jwk(kid="key-2"))
        published.broken = lambda: httpx.Response(503)
        now = 60.0

        for _ in range(2):
            with pytest.raises(Unavailable):
                await keys.find("key-2")
        published.broken, now = None, 120.0

        assert await keys.find("key-2") is not None
        assert await keys.find("forged") is None

    async def test_without_any_key_the_error_is_unavailable(
        self, published: Published, http: httpx.AsyncClient
    ) -> None:
        published.broken = lambda: httpx.Response(503)
        keys = IssuerKeys(http, ISSUER)
        verifier = TokenVerifier(keys, issuer=ISSUER)

        for _ in range(5):
            with pytest.raises(Unavailable):
                await verifier.verify(OURS.sign())

        assert published.asked == 1
        assert await keys.check() is not None
