"""Rotation of the keys that sign tokens: in the database, by several replicas, without a false 401.

Time is simulated; the verifiers are those of inference and billing, with their real caches.
"""

import asyncio

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import SigningKey
from services.auth.signing import repository
from services.auth.signing.schedule import KEPT_AFTER, PUBLISHED_BEFORE
from services.auth.signing.service import rotate
from services.auth.signing.vault import Vault
from services.common.db.database import Database
from services.common.identity.tokens import MAX_LIFETIME_S
from tests.integration.auth.signing.replicas import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    START,
    Clock,
    Replica,
    Verifier,
    acts,
    kid,
    states,
)


class TestRotation:
    @pytest.mark.costly
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
                assert await replicas[(step + 1) % 2].ring.find(kid(each)) is not None
            signers.add(kid(token))
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
        before = {kid(replica.issue()) for replica in replicas}
        done = await rotate(database, Vault(), clock=clock.utc)
        for replica in replicas:
            await replica.keeper.refresh()

        clock.now = done.new.signs_from - SECOND
        just_before = {kid(replica.issue()) for replica in replicas}
        clock.now = done.new.signs_from
        after = {kid(replica.issue()) for replica in replicas}

        assert len(before) == 1
        assert just_before == before
        assert after == {done.new.id}

    @pytest.mark.costly
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
        assert kid(replica.issue()) == done.new.id

    @pytest.mark.costly
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

        assert kid(away.issue()) == done.new.id

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
