"""Rotation of the keys that sign tokens: in the database, by several replicas, without a false 401.

Time is simulated; the verifiers are those of inference and billing, with their real caches.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from harness.databases import empty_tables
from services.auth.app import MIGRATIONS
from services.auth.keys import KeyRing, LoadedKey
from services.auth.models import Base, EncryptionKey, PendingAuditEntry, SigningKey
from services.auth.signing import repository, service
from services.auth.signing.schedule import KEPT_AFTER, PUBLISHED_BEFORE, describe
from services.auth.signing.service import KeyKeeper, read_keys, rotate
from services.auth.signing.vault import Vault, WrongPassphrase
from services.common.contracts import AUDIENCE
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.issuer_keys import IssuerKeys
from services.common.identity.tokens import MAX_LIFETIME_S, TokenVerifier
from tests.integration.auth.conftest import LogIn, OpenApp, browse

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


@pytest.fixture(scope="module")
def pool() -> list[LoadedKey]:
    """Keys for all tests, because a key takes a tenth of a second."""
    return [LoadedKey(rsa.generate_private_key(65537, 2048)) for _ in range(10)]


@pytest.fixture(autouse=True)
def unused(pool: list[LoadedKey], monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedKey]:
    """The keys that this test has not used yet; the code gets them, too."""
    unused = itertools.cycle(pool)
    monkeypatch.setattr(service, "new_key", lambda: next(unused))
    return unused


@pytest.fixture(scope="module")
async def signing_url(database_kind: str, new_database_url: Callable[[str], str]) -> str:
    """A database of its own, because the running app has its keys in memory."""
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    return url


@pytest.fixture
async def database(signing_url: str) -> AsyncIterator[Database]:
    database = Database(signing_url)
    await empty_tables(database, Base.metadata)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def acts(database: Database) -> list[tuple[str, str | None]]:
    """Return the recorded acts with their actors, oldest first."""
    in_order = select(PendingAuditEntry).order_by(PendingAuditEntry.id)
    async with database.snapshot() as session:
        return [(each.action, each.actor) for each in await session.scalars(in_order)]


async def states(database: Database, clock: Clock) -> list[str]:
    stored = await read_keys(database)
    return [describe(key, stored, now=clock.now) for key in stored]


class TestRotation:
    async def test_no_verifier_ever_refuses_a_token(self, database: Database, clock: Clock) -> None:
        replicas = [Replica(database, clock) for _ in range(2)]
        for replica in replicas:
            await replica.keeper.refresh()
        verifiers = [
            Verifier(replicas, clock),
            Verifier(replicas[::-1], clock),
            Verifier(replicas, clock, extra_cache=5 * MINUTE),
        ]
        valid: list[tuple[float, bytes]] = []
        signers = set()
        await rotate(database, Vault(), clock=clock.utc)

        step = 0
        while clock.now < START + PUBLISHED_BEFORE + KEPT_AFTER + HOUR:
            if step % 2 or clock.now > START + 2 * HOUR:  # each refreshes at its own time
                await replicas[0].keeper.refresh()
            if step % 3 == 0 or clock.now > START + 2 * HOUR:
                await replicas[1].keeper.refresh()
            lifetime_s = MAX_LIFETIME_S if step % 4 == 0 else 3600
            token = replicas[step % 2].issue(lifetime_s=lifetime_s)
            valid.append((clock.seconds() + lifetime_s, token))
            valid = [(expiry, each) for expiry, each in valid if expiry > clock.seconds()]
            checked = [token, *(each for _, each in valid[step % 7 :: 7])]
            for each in checked:
                for verifier in verifiers[: 1 + step % 3]:
                    await verifier.tokens.verify(each)
                assert await replicas[(step + 1) % 2].ring.find(_kid(each)) is not None
            signers.add(_kid(token))
            near = clock.now < START + PUBLISHED_BEFORE + 20 * MINUTE
            clock.now += MINUTE if near else 20 * MINUTE
            step += 1

        assert len(signers) == 2
        assert await states(database, clock) == ["retired", "signs"]
        assert [len(each.ring.document["keys"]) for each in replicas] == [1, 1]

    async def test_all_replicas_switch_at_the_same_moment(
        self, database: Database, clock: Clock
    ) -> None:
        replicas = [Replica(database, clock) for _ in range(2)]
        await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))
        before = {_kid(replica.issue()) for replica in replicas}
        done = await rotate(database, Vault(), clock=clock.utc)
        for replica in replicas:
            await replica.keeper.refresh()

        clock.now = done.new.signs_from - SECOND
        just_before = {_kid(replica.issue()) for replica in replicas}
        clock.now = done.new.signs_from
        after = {_kid(replica.issue()) for replica in replicas}

        assert len(before) == 1
        assert just_before == before
        assert after == {done.new.id}

    async def test_by_age_exactly_one_replica_rotates(
        self, database: Database, clock: Clock
    ) -> None:
        replicas = [Replica(database, clock, max_age=90 * DAY) for _ in range(4)]
        await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))
        clock.now += 90 * DAY

        for _ in range(2):
            await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))

        assert await states(database, clock) == ["signs", "published"]
        created = [("signing_key_created", None)]
        assert await acts(database) == created * 2

        clock.now += PUBLISHED_BEFORE + KEPT_AFTER
        await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))
        assert await states(database, clock) == ["retired", "signs"]
        assert await acts(database) == [*created * 2, ("signing_key_retired", None)]

    async def test_without_an_age_no_key_is_replaced(
        self, database: Database, clock: Clock
    ) -> None:
        replica = Replica(database, clock)
        await replica.keeper.refresh()
        clock.now += 10_000 * DAY

        await replica.keeper.refresh()

        assert await states(database, clock) == ["signs"]

    async def test_a_second_command_changes_nothing_while_a_key_waits(
        self, database: Database, clock: Clock
    ) -> None:
        await Replica(database, clock).keeper.refresh()

        first, *others = await asyncio.gather(
            *(rotate(database, Vault(), clock=clock.utc) for _ in range(3))
        )

        assert sorted(each.began for each in (first, *others)) == [False, False, True]
        assert len({each.new.id for each in (first, *others)}) == 1
        assert await states(database, clock) == ["signs", "published"]

    async def test_a_process_killed_halfway_leaves_nothing_and_the_next_one_completes_it(
        self, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Replica(database, clock)
        await replica.keeper.refresh()

        async def killed(session: AsyncSession, key: SigningKey) -> None:
            session.add(key)
            await session.flush()
            raise asyncio.CancelledError

        with monkeypatch.context() as patched:
            patched.setattr(repository, "add_key", killed)
            with pytest.raises(asyncio.CancelledError):
                await rotate(database, Vault(), clock=clock.utc)
        halfway = await states(database, clock)
        done = await rotate(database, Vault(), clock=clock.utc)
        clock.now = done.new.signs_from  # the process that rotated is gone; the others go on
        await replica.keeper.refresh()

        assert halfway == ["signs"]
        assert _kid(replica.issue()) == done.new.id

    async def test_a_replica_that_was_away_for_days_signs_with_the_present_key(
        self, database: Database, clock: Clock
    ) -> None:
        away, other = Replica(database, clock), Replica(database, clock)
        await away.keeper.refresh()
        await other.keeper.refresh()
        done = await rotate(database, Vault(), clock=clock.utc)
        clock.now += PUBLISHED_BEFORE + KEPT_AFTER
        await other.keeper.refresh()

        await away.keeper.refresh()

        assert _kid(away.issue()) == done.new.id

    async def test_the_private_half_of_a_retired_key_is_erased(
        self, database: Database, clock: Clock
    ) -> None:
        replica = Replica(database, clock)
        await replica.keeper.refresh()
        await rotate(database, Vault(), clock=clock.utc)
        clock.now += PUBLISHED_BEFORE + KEPT_AFTER

        await replica.keeper.refresh()

        async with database.snapshot() as session:
            stored = await session.scalars(select(SigningKey).order_by(SigningKey.signs_from))
            assert [key.private_pem is None for key in stored] == [True, False]


class TestLeakedKey:
    async def test_it_is_retired_at_once_and_every_token_of_it_is_refused(
        self, database: Database, clock: Clock
    ) -> None:
        forgets: list[Callable[[], None]] = []
        replica = Replica(database, clock, on_withdrawal=lambda: forgets[0]())
        own = TokenVerifier(replica.ring, issuer=ISSUER, clock=clock.seconds)
        forgets.append(own.forget)
        await replica.keeper.refresh()
        verifier = Verifier([replica], clock)
        stolen = replica.issue()
        await verifier.tokens.verify(stolen)
        await own.verify(stolen)
        clock.now += MINUTE

        done = await rotate(database, Vault(), at_once=True, clock=clock.utc)
        await replica.keeper.refresh()
        await verifier.tokens.verify(replica.issue())  # its unknown key makes the service look

        assert done.retired == (_kid(stolen),)
        for each in (verifier.tokens, own):
            with pytest.raises(Unauthenticated):
                await each.verify(stolen)
        assert await acts(database) == [
            ("signing_key_created", None),
            ("signing_key_created", "operator"),
            ("signing_key_retired", None),
        ]

    async def test_a_key_that_waits_to_sign_is_retired_too(
        self, database: Database, clock: Clock
    ) -> None:
        await Replica(database, clock).keeper.refresh()
        await rotate(database, Vault(), clock=clock.utc)
        clock.now += MINUTE

        done = await rotate(database, Vault(), at_once=True, clock=clock.utc)

        assert len(done.retired) == 2
        assert await states(database, clock) == ["retired", "retired", "signs"]

    async def test_without_new_tokens_a_verifier_refuses_it_after_five_minutes(
        self, database: Database, clock: Clock
    ) -> None:
        replica = Replica(database, clock)
        await replica.keeper.refresh()
        verifier = Verifier([replica], clock)
        await verifier.tokens.verify(replica.issue())
        stolen = replica.issue()
        await rotate(database, Vault(), at_once=True, clock=clock.utc)
        await replica.keeper.refresh()

        clock.now += 5 * MINUTE + SECOND

        with pytest.raises(Unauthenticated):
            await verifier.tokens.verify(stolen)


class TestGivenKeys:
    async def test_the_last_one_signs_at_once_in_an_empty_database(
        self, database: Database, clock: Clock, unused: Iterator[LoadedKey]
    ) -> None:
        given = [next(unused), next(unused)]
        replicas = [Replica(database, clock, given=given) for _ in range(2)]

        await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))

        assert {_kid(replica.issue()) for replica in replicas} == {given[-1].id}
        assert {key["kid"] for key in replicas[0].ring.document["keys"]} == {
            key.id for key in given
        }

    async def test_a_new_one_replaces_the_present_key_like_any_rotation(
        self, database: Database, clock: Clock, unused: Iterator[LoadedKey]
    ) -> None:
        first, second = next(unused), next(unused)
        await Replica(database, clock, given=[first]).keeper.refresh()
        clock.now += DAY

        replica = Replica(database, clock, given=[first, second])
        await replica.keeper.refresh()

        assert _kid(replica.issue()) == first.id
        assert await states(database, clock) == ["signs", "published"]
        clock.now += PUBLISHED_BEFORE
        assert _kid(replica.issue()) == second.id

    async def test_one_that_was_retired_does_not_return(
        self, database: Database, clock: Clock, unused: Iterator[LoadedKey]
    ) -> None:
        leaked = next(unused)
        await Replica(database, clock, given=[leaked]).keeper.refresh()
        done = await rotate(database, Vault(), at_once=True, clock=clock.utc)

        restarted = Replica(database, clock, given=[leaked])
        await restarted.keeper.refresh()

        assert _kid(restarted.issue()) == done.new.id
        assert await restarted.ring.find(leaked.id) is None


class TestPassphrase:
    async def test_keys_are_encrypted_at_rest(self, database: Database, clock: Clock) -> None:
        replica = Replica(database, clock, vault=Vault(("a passphrase",)))
        await replica.keeper.refresh()

        async with database.snapshot() as session:
            pem = await session.scalar(select(SigningKey.private_pem))
            wrapped = await session.scalar(select(EncryptionKey.wrapped))

        assert pem is not None
        assert wrapped is not None
        assert pem.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert wrapped.startswith("scrypt:")
        for wrong in (("",), ("another", "")):
            with pytest.raises(WrongPassphrase):
                await Replica(database, clock, vault=Vault(wrong)).keeper.refresh()

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (("",), ("new", "")),
            (("old", ""), ("new", "old")),
            (("old", ""), ("", "old")),
        ],
        ids=["added", "changed", "removed"],
    )
    async def test_it_can_be_added_changed_and_removed(
        self, database: Database, clock: Clock, before: Sequence[str], after: Sequence[str]
    ) -> None:
        running = Replica(database, clock, vault=Vault(before))
        await running.keeper.refresh()
        secret = running.vault.encrypt(b"secret", owner="ada")

        restarted = [Replica(database, clock, vault=Vault(after)) for _ in range(2)]
        await asyncio.gather(*(replica.keeper.refresh() for replica in restarted))
        await rotate(database, Vault(after), clock=clock.utc)
        await running.keeper.refresh()  # it still has the old setting

        assert restarted[0].vault.decrypt(secret, owner="ada") == b"secret"
        assert len({_kid(each.issue()) for each in (running, *restarted)}) == 1
        assert ("passphrase_changed", "operator") in await acts(database)
        only_new = Replica(database, clock, vault=Vault(after[:1]))
        await only_new.keeper.refresh()
        with pytest.raises(ValueError, match="wrong key"):
            only_new.vault.decrypt(secret, owner="eve")


async def test_a_replica_without_a_database_is_not_ready_until_it_has_one(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Database) -> Sequence[SigningKey]:
        raise Unavailable("The database is unavailable; retry in 1 s.")

    with monkeypatch.context() as patched:
        patched.setattr(service, "read_keys", fail)
        async with open_app() as app, browse(app) as client:
            refused = await client.get("/readyz")
            key_set = await client.get("/.well-known/jwks.json")
            patched.undo()
            ready = await client.get("/readyz")
            published = await client.get("/.well-known/jwks.json")

    assert refused.status_code == 503
    assert "signing_keys" in refused.json()["failing"]
    assert key_set.status_code == 503
    assert "Cache-Control" not in key_set.headers
    assert ready.status_code == 200
    assert len(published.json()["keys"]) == 1


async def test_replicas_of_the_app_accept_each_others_tokens(
    open_app: OpenApp, client: AsyncClient, ada: dict[str, str], log_in: LogIn
) -> None:
    token = (await log_in()).json()["access_token"]

    async with open_app() as other, browse(other) as there:
        answer = await there.get("/userinfo", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200


def _kid(token: bytes) -> str:
    return str(jwt.get_unverified_header(token.decode())["kid"])
