"""Revocations end what a process has already verified."""

import asyncio
import tracemalloc
import uuid
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from harness.issuer import Issuer
from harness.waiting import eventually_async
from services.common.contracts import RevocationKind, RevocationPage, RevocationRead
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity import revocation_feed
from services.common.identity.api_keys import new_api_key
from services.common.identity.key_verifier import KEEP_S, KeyVerifier
from services.common.identity.revocation_feed import follow_revocations
from services.common.identity.revocations import Revocations
from services.common.identity.tokens import TokenVerifier, token_digest
from tests.unit.common.test_key_verifier import ACCOUNT, Auth

NOW = 1_800_000_000
USER = "0198a000-0000-7000-8000-000000000002"
ORGANISATION = "0198a000-0000-7000-8000-000000000003"
OURS = Issuer("http://auth")


def revocation(
    kind: RevocationKind, id: str, *, account: str | None = None, issued_before: int = NOW + 1
) -> RevocationRead:
    instants = (datetime.fromtimestamp(at, UTC) for at in (issued_before, NOW + 86_400))
    return RevocationRead(
        kind=kind,
        id=id,
        account=account,
        **dict(zip(("issued_before", "until"), instants, strict=True)),
    )


def token(**claims: object) -> bytes:
    times = {"iat": NOW, "exp": NOW + 3600}
    own = {"sub": ACCOUNT, "user_id": USER, "client_id": "client-1", "jti": "token-1"}
    return OURS.sign(claims=OURS.claims(**times | own | claims))


@pytest.fixture
def auth() -> Auth:
    return Auth(now=NOW)


@pytest.fixture
def verifier(auth: Auth) -> TokenVerifier:
    revocations = Revocations()
    keys = KeyVerifier(auth.introspect, revocations=revocations, clock=lambda: auth.now)
    return TokenVerifier(
        OURS,
        issuer="http://auth",
        api_keys=keys,
        revocations=revocations,
        clock=lambda: auth.now,
    )


@pytest.fixture
def key() -> bytes:
    return new_api_key("live").encode()


class TestTokens:
    @pytest.mark.parametrize(
        ("kind", "id"),
        [("jti", "token-1"), ("account", ACCOUNT), ("user", USER), ("client", "client-1")],
    )
    async def test_a_token_that_is_named_is_refused(
        self, verifier: TokenVerifier, kind: RevocationKind, id: str
    ) -> None:
        known, new = token(), token(extra=1)
        await verifier.verify(known)

        await verifier.revoke([revocation(kind, id)])

        assert verifier.recall(token_digest(known)) is None
        for each in (known, new):
            with pytest.raises(Unauthenticated):
                await verifier.verify(each)

    @pytest.mark.parametrize(
        ("kind", "id"),
        [
            ("jti", "token-2"),
            ("account", USER),
            ("user", ACCOUNT),
            ("client", "token-1"),
            ("api_key", "client-1"),
        ],
    )
    async def test_any_other_token_is_accepted(
        self, verifier: TokenVerifier, kind: RevocationKind, id: str
    ) -> None:
        known = token()
        await verifier.verify(known)

        await verifier.revoke([revocation(kind, id)])

        assert verifier.recall(token_digest(known)) is not None
        await verifier.verify(token(extra=1))

    async def test_a_token_issued_afterwards_is_accepted(self, verifier: TokenVerifier) -> None:
        await verifier.revoke([revocation("user", USER, issued_before=NOW + 1)])

        await verifier.verify(token(iat=NOW + 1))
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(iat=NOW))

    async def test_a_users_tokens_for_one_account_are_refused_and_no_others(
        self, verifier: TokenVerifier
    ) -> None:
        tokens = {
            "the member's": token(sub=ORGANISATION),
            "personal": token(sub=USER, jti="token-2"),
            "another organisation's": token(jti="token-3"),
            "another member's": token(sub=ORGANISATION, user_id=ACCOUNT, jti="token-4"),
        }
        for each in tokens.values():
            await verifier.verify(each)

        await verifier.revoke([revocation("user", USER, account=ORGANISATION)])

        left = {name for name, each in tokens.items() if verifier.recall(token_digest(each))}
        assert left == set(tokens) - {"the member's"}
        with pytest.raises(Unauthenticated):
            await verifier.verify(tokens["the member's"])
        await verifier.verify(token(sub=ORGANISATION, iat=NOW + 1, jti="token-5"))

    async def test_both_a_users_and_a_members_revocation_are_kept(
        self, verifier: TokenVerifier
    ) -> None:
        later = revocation("user", USER, issued_before=NOW + 9)

        await verifier.revoke([later, revocation("user", USER, account=ORGANISATION)])

        with pytest.raises(Unauthenticated):
            await verifier.verify(token(sub=ORGANISATION, iat=NOW + 8))

    async def test_an_older_verifier_revokes_all_of_the_users_tokens(self) -> None:
        class Older(BaseModel):
            kind: RevocationKind
            id: str

        page = revocation("user", USER, account=ORGANISATION).model_dump_json()

        assert Older.model_validate_json(page).id == USER
        assert "account" not in revocation("user", USER).model_dump()

    async def test_a_machines_token_has_no_user(self, verifier: TokenVerifier) -> None:
        claims = OURS.claims(iat=NOW, exp=NOW + 3600, sub=USER)

        await verifier.revoke([revocation("user", USER)])

        assert (await verifier.verify(OURS.sign(claims=claims))).user_id is None

    async def test_a_user_id_that_is_not_text_is_refused(self, verifier: TokenVerifier) -> None:
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(user_id=1))

    async def test_a_long_cache_is_searched_to_its_end(
        self, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.common.identity.tokens._SCAN_AT_ONCE", 2)
        tokens = [token(jti=f"token-{n}") for n in range(7)]
        for each in tokens:
            await verifier.verify(each)

        await verifier.revoke([revocation("jti", "token-6"), revocation("jti", "token-0")])

        known = [verifier.recall(token_digest(each)) is not None for each in tokens]
        assert known == [False, *[True] * 5, False]


class TestKeys:
    @pytest.mark.parametrize(("kind", "id"), [("api_key", "key-1"), ("account", ACCOUNT)])
    async def test_a_key_that_is_named_is_asked_about_again(
        self, verifier: TokenVerifier, auth: Auth, key: bytes, kind: RevocationKind, id: str
    ) -> None:
        await verifier.verify(key)

        await verifier.revoke([revocation(kind, id)])
        auth.active = False

        assert verifier.recall(token_digest(key)) is None
        with pytest.raises(Unauthenticated):
            await verifier.verify(key)

    async def test_a_key_in_its_overlap_is_accepted_until_it_ends(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(key)

        await verifier.revoke([revocation("api_key", "key-1")])
        auth.claims = {"exp": NOW + 60}

        assert (await verifier.verify(key)).expires_at == NOW + 60
        assert auth.asked == 2

    async def test_a_revoked_key_is_not_accepted_while_auth_is_away(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(key)
        await verifier.revoke([revocation("api_key", "key-1")])
        auth.away = True

        with pytest.raises(Unavailable):
            await verifier.verify(key)

    async def test_an_answer_overtaken_by_a_revocation_does_not_count(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        def revoke_once() -> None:
            auth.while_asked = lambda: setattr(auth, "active", False)
            verifier._revocations.add([revocation("api_key", "key-1")], now=NOW)

        auth.while_asked = revoke_once

        with pytest.raises(Unauthenticated):
            await verifier.verify(key)
        assert auth.asked == 2

    async def test_endless_revocations_end_in_503(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        auth.while_asked = lambda: verifier._revocations.add(
            [revocation("account", ACCOUNT)], now=NOW
        )

        with pytest.raises(Unavailable):
            await verifier.verify(key)

    async def test_a_revocation_just_after_the_answer_counts(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        verifying = asyncio.create_task(verifier.verify(key))
        keys = verifier._api_keys
        assert keys is not None
        await eventually_async(lambda: bool(keys._confirmed))
        auth.active = False
        await verifier.revoke([revocation("api_key", "key-1")])

        outcome = (await asyncio.gather(verifying, return_exceptions=True))[0]

        if not isinstance(outcome, Unauthenticated):  # it was answered before
            with pytest.raises(Unauthenticated):
                await verifier.verify(key)
        assert verifier.recall(token_digest(key)) is None

    async def test_a_key_counts_as_confirmed_as_long_as_auth_reports_revocations(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(key)
        auth.away = True
        auth.now += KEEP_S - 1
        await verifier.revoke([])

        auth.now += KEEP_S - 1
        assert (await verifier.verify(key)).account == ACCOUNT
        auth.now += 1
        with pytest.raises(Unavailable):
            await verifier.verify(key)


class Feed:
    """Auth's list of revocations; stops the reader once it has no more pages."""

    def __init__(self, *pages: RevocationPage | Unavailable) -> None:
        self._pages = list(pages)
        self.asked: list[int] = []

    async def list_revocations(self, *, after: int) -> RevocationPage:
        self.asked.append(after)
        if not self._pages:
            raise asyncio.CancelledError
        page = self._pages.pop(0)
        if isinstance(page, Unavailable):
            raise page
        return page

    async def follow(self, verifier: TokenVerifier) -> None:
        with pytest.raises(asyncio.CancelledError):
            await follow_revocations(self, verifier)  # type: ignore[arg-type]


class TestFeed:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocation_feed, "EVERY_S", 0.001)

    async def test_each_page_continues_the_last(self, verifier: TokenVerifier) -> None:
        known = token()
        await verifier.verify(known)
        pages = [
            RevocationPage(last=7, revocations=[]),
            RevocationPage(last=8, revocations=[revocation("user", USER)]),
        ]
        feed = Feed(*pages)

        await feed.follow(verifier)

        assert feed.asked == [0, 7, 8]
        assert verifier.recall(token_digest(known)) is None

    async def test_while_auth_is_away_what_is_known_stays_and_the_reader_tries_again(
        self, verifier: TokenVerifier
    ) -> None:
        known = token()
        await verifier.verify(known)
        away = Unavailable("away")
        feed = Feed(RevocationPage(last=3, revocations=[]), away, away)

        await feed.follow(verifier)

        assert feed.asked == [0, 3, 3, 3]
        assert verifier.recall(token_digest(known)) is not None

    async def test_after_a_restored_database_everything_is_verified_again(
        self, verifier: TokenVerifier, auth: Auth, key: bytes
    ) -> None:
        await verifier.verify(token())
        await verifier.verify(key)
        feed = Feed(
            RevocationPage(last=9, revocations=[revocation("client", "other")]),
            RevocationPage(last=2, revocations=[]),
        )

        await feed.follow(verifier)

        assert feed.asked == [0, 9, 2]
        assert [verifier.recall(token_digest(each)) for each in (token(), key)] == [None, None]
        auth.active = False
        with pytest.raises(Unauthenticated):
            await verifier.verify(key)


def test_ten_thousand_revocations_take_less_than_ten_megabytes() -> None:
    revocations = Revocations()
    tracemalloc.start()
    try:
        for _ in range(20):
            page = [revocation("user", str(uuid.uuid4())) for _ in range(500)]
            revocations.add(page, now=NOW)
        del page
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < 10_000_000


def test_expired_revocations_are_dropped() -> None:
    revocations = Revocations()
    revocations.add([revocation("user", USER)], now=NOW)

    revocations.add([], now=NOW + 86_400)

    assert revocations._entries == {}
    assert revocations.number == 1
