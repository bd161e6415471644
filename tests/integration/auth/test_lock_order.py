"""Transactions that lock the same rows take them in the same order."""

import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from tests.integration.auth.conftest import browse
from tests.integration.auth.organisations.people import BOB, sign_up

TURNS = 25


@pytest.mark.costly
async def test_a_user_who_changes_the_email_while_being_added_to_an_organisation_deadlocks_nobody(
    app: FastAPI, client: AsyncClient
) -> None:
    """Both lock the user, and the counters of mails from the address that both come from."""
    ada = await sign_up(client, "ada@example.com")
    bob = await sign_up(client, BOB)
    organisation = await ada.create_organisation()
    path, email = f"/organisations/{organisation}/members", BOB

    for turn in range(TURNS):
        new = f"bob{turn}@example.com"
        async with browse(app, address=f"203.0.113.{turn}") as caller:  # mails are limited
            changed, added = await asyncio.gather(
                caller.patch("/users/me", json={"email": new}, headers=bob.headers),
                caller.put(path, json={"email": email, "role": "viewer"}, headers=ada.headers),
            )

        assert (changed.status_code, added.status_code in (200, 202)) == (200, True)
        await ada.remove(organisation, bob.id)
        email = new
