"""A passphrase encrypts keys at rest, and can be changed while replicas run."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from services.auth.models import EncryptionKey, SigningKey
from services.auth.signing.service import rotate
from services.auth.signing.vault import Vault, WrongPassphrase
from services.common.db.database import Database
from tests.integration.auth.signing.replicas import (
    Clock,
    Replica,
    acts,
    kid,
)


@pytest.mark.costly
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
    @pytest.mark.any_database
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
        assert len({kid(each.issue()) for each in (running, *restarted)}) == 1
        assert ("passphrase_changed", "operator") in await acts(database)
        only_new = Replica(database, clock, vault=Vault(after[:1]))
        await only_new.keeper.refresh()
        with pytest.raises(ValueError, match="wrong key"):
            only_new.vault.decrypt(secret, owner="eve")
