"""A leaked key is retired at once, and every token of it is refused."""

from collections.abc import Callable

import pytest

from services.auth.signing.service import rotate
from services.auth.signing.vault import Vault
from services.common.db.database import Database
from services.common.errors import Unauthenticated
from services.common.identity.tokens import TokenVerifier
from tests.integration.auth.signing.replicas import (
    ISSUER,
    MINUTE,
    SECOND,
    Clock,
    Replica,
    Verifier,
    acts,
    kid,
    states,
)


class TestLeakedKey:
    @pytest.mark.costly
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

        assert done.retired == (kid(stolen),)
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
