"""Keys of the operator's own sign like those that auth creates."""

import asyncio
from collections.abc import Iterator

import pytest

from services.auth.keys import LoadedKey
from services.auth.signing.schedule import PUBLISHED_BEFORE
from services.auth.signing.service import rotate
from services.auth.signing.vault import Vault
from services.common.db.database import Database
from tests.integration.auth.signing.replicas import (
    DAY,
    Clock,
    Replica,
    kid,
    states,
)


class TestGivenKeys:
    @pytest.mark.costly
    async def test_the_last_one_signs_at_once_in_an_empty_database(
        self, database: Database, clock: Clock, unused: Iterator[LoadedKey]
    ) -> None:
        given = [next(unused), next(unused)]
        replicas = [Replica(database, clock, given=given) for _ in range(2)]

        await asyncio.gather(*(replica.keeper.refresh() for replica in replicas))

        assert {kid(replica.issue()) for replica in replicas} == {given[-1].id}
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

        assert kid(replica.issue()) == first.id
        assert await states(database, clock) == ["signs", "published"]
        clock.now += PUBLISHED_BEFORE
        assert kid(replica.issue()) == second.id

    async def test_one_that_was_retired_does_not_return(
        self, database: Database, clock: Clock, unused: Iterator[LoadedKey]
    ) -> None:
        leaked = next(unused)
        await Replica(database, clock, given=[leaked]).keeper.refresh()
        done = await rotate(database, Vault(), at_once=True, clock=clock.utc)

        restarted = Replica(database, clock, given=[leaked])
        await restarted.keeper.refresh()

        assert kid(restarted.issue()) == done.new.id
        assert await restarted.ring.find(leaked.id) is None
