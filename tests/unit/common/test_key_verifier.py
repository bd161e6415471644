"""API keys are verified by auth, and remembered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.common.contracts import KeyIntrospection
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity import key_verifier
from services.common.identity.api_keys import new_api_key
from services.common.identity.issuer_keys import KeySource
from services.common.identity.key_verifier import CONFIRM_EVERY_S, KEEP_S, REFUSED_S, KeyVerifier
from services.common.identity.limits import KeyLimits
from services.common.identity.tokens import TokenVerifier, token_digest

ACCOUNT = "0198a000-0000-7000-8000-000000000001"


@dataclass
class Auth:
    """Answers introspections as auth would; a test changes the attributes."""

    claims: dict[str, Any] = field(default_factory=dict)
    active: bool = True
    away: bool = False
    asked: int = 0
    now: float = 1_000_000.0
    while_asked: Callable[[], None] = lambda: None

    async def introspect(self, key: bytes) -> KeyIntrospection | None:
        self.asked += 1
        await asyncio.sleep(0)
        self.while_asked()
        if self.away:
            raise Unavailable("away")
        if not self.active:
            return None
        claims = {"active": True, "token_type": "api_key", "sub": ACCOUNT, "client_id": "key-1"}
        claims |= {"scope": "predict", "iat": 0, "mode": "live"}
        return KeyIntrospection.model_validate(claims | self.claims)


class NoKeys(KeySource):
    async def find(self, kid: str) -> None:
        raise AssertionError("an API key is not a token")


@pytest.fixture
def auth() -> Auth:
    return Auth()


@pytest.fixture
def verifier(auth: Auth) -> TokenVerifier:
    keys = KeyVerifier(auth.introspect, clock=lambda: auth.now)
    return TokenVerifier(NoKeys(), issuer="x", api_keys=keys, clock=lambda: auth.now)


@pytest.fixture
def key() -> bytes:
    return new_api_key("live").encode()


class TestVerify:
    async def test_the_first_use_asks_auth_and_later_ones_do_not(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        callers = [await verifier.verify(key) for _ in range(100)]

        assert auth.asked == 1
        assert verifier.recall(token_digest(key)) == callers[0] == callers[99]
        assert (callers[0].account, callers[0].client_id) == (ACCOUNT, "key-1")
        assert callers[0].scopes == {"predict"}
        assert callers[0].limits is None

    async def test_first_uses_at_once_share_one_question(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        callers = await asyncio.gather(*(verifier.verify(key) for _ in range(50)))

        assert auth.asked == 1
        assert set(callers) == {callers[0]}

    async def test_a_request_that_gives_up_does_not_fail_the_others(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        first, second = (asyncio.create_task(verifier.verify(key)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()

        assert (await second).account == ACCOUNT
        assert auth.asked == 1

    async def test_a_malformed_key_is_refused_without_a_question(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        for wrong in (key[:-1], key + b"0", b"tg_", key.swapcase()):
            if wrong.startswith(b"tg_"):
                with pytest.raises(Unauthenticated):
                    await verifier.verify(wrong)

        assert auth.asked == 0

    async def test_an_inactive_key_is_refused_and_not_asked_about_for_a_moment(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.active = False
        for _ in range(10):
            with pytest.raises(Unauthenticated):
                await verifier.verify(key)
        assert auth.asked == 1

        auth.active = True
        auth.now += REFUSED_S

        assert (await verifier.verify(key)).account == ACCOUNT

    async def test_without_a_verifier_of_keys_all_are_refused(self, key: bytes) -> None:
        with pytest.raises(Unauthenticated):
            await TokenVerifier(NoKeys(), issuer="x").verify(key)

    async def test_it_has_the_limits_that_auth_states(
        self, verifier: TokenVerifier, auth: Auth
    ) -> None:
        auth.claims = {"mode": "test", "models": ["wine"]}

        caller = await verifier.verify(new_api_key("test").encode())

        assert caller.limits == KeyLimits(frozenset({"wine"}), None, is_test=True)

    async def test_a_key_whose_limits_are_unreadable_is_not_accepted(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.claims = {"allowed_ips": ["nowhere"]}

        with pytest.raises(Unavailable):
            await verifier.verify(key)

    async def test_too_many_unknown_keys_at_once_get_503(
        self, verifier: TokenVerifier, auth: Auth, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_verifier, "MAX_ASKING", 3)
        keys = [new_api_key("live").encode() for _ in range(5)]

        outcomes = await asyncio.gather(
            *(verifier.verify(each) for each in keys), return_exceptions=True
        )

        assert [isinstance(each, Unavailable) for each in outcomes] == [False] * 3 + [True] * 2

    async def test_what_it_remembers_is_bounded(
        self, verifier: TokenVerifier, auth: Auth, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_verifier, "MAX_REMEMBERED", 2)
        monkeypatch.setattr(key_verifier, "MAX_REFUSED", 2)
        for active in (True, False):
            auth.active = active
            for _ in range(4):
                outcome = verifier.verify(new_api_key("live").encode())
                await asyncio.gather(outcome, return_exceptions=True)

        keys = verifier._api_keys
        assert keys is not None
        assert (len(keys._confirmed), len(keys._refused_until), len(keys._asking)) == (2, 2, 0)


class TestTime:
    async def test_a_key_in_use_is_confirmed_again_every_few_minutes(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(key)
        auth.now += CONFIRM_EVERY_S - 1
        await verifier.verify(key)
        assert auth.asked == 1
        auth.now += 1

        await verifier.verify(key)

        assert auth.asked == 2

    async def test_an_expired_key_is_refused(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.claims = {"exp": int(auth.now) + 10}
        await verifier.verify(key)
        auth.now += 10
        auth.active = False

        assert verifier.recall(token_digest(key)) is None
        with pytest.raises(Unauthenticated):
            await verifier.verify(key)

    async def test_while_auth_is_away_a_known_key_works_for_15_minutes(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(key)
        auth.away = True

        for _ in range(KEEP_S - 1):
            auth.now += 1
            assert (await verifier.verify(key)).account == ACCOUNT
        auth.now += 1

        with pytest.raises(Unavailable):
            await verifier.verify(key)
        assert 2 <= auth.asked <= KEEP_S / key_verifier.RETRY_S

    async def test_while_auth_is_away_a_known_key_still_expires(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.claims = {"exp": int(auth.now) + CONFIRM_EVERY_S + 10}
        await verifier.verify(key)
        auth.away = True
        auth.now += CONFIRM_EVERY_S
        await verifier.verify(key)
        auth.now += 10

        with pytest.raises(Unauthenticated):
            await verifier.verify(key)

    async def test_while_auth_is_away_an_unknown_key_is_503(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.away = True

        with pytest.raises(Unavailable):
            await verifier.verify(key)

        auth.away = False
        assert (await verifier.verify(key)).account == ACCOUNT
