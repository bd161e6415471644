"""An invitation ends when its inviter may no longer invite."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.models import Invitation
from services.auth.users.service import set_disabled
from services.common.db.database import Database
from tests.integration.auth.conftest import Headers, actions_on, count
from tests.integration.auth.organisations.invitations import accept, invite
from tests.integration.auth.organisations.people import (
    BOB,
    GRACE,
    Person,
    assert_problem,
    sign_up,
)

CARL = "carl@example.com"


@pytest.fixture
async def grace(client: AsyncClient, ada: Person, organisation: str) -> Person:
    """An admin of Ada's organisation."""
    grace = await sign_up(client, GRACE)
    await ada.put(organisation, GRACE, "admin")
    return grace


@pytest.mark.any_database
class TestEnds:
    @pytest.fixture(params=["leaves", "removed", "demoted", "disabled", "deleted"])
    def end(
        self,
        request: pytest.FixtureRequest,
        ada: Person,
        grace: Person,
        organisation: str,
        client: AsyncClient,
        database: Database,
    ) -> Callable[[], Awaitable[object]]:
        """What takes Grace's right to invite away."""

        async def disable() -> None:
            async with database.transaction() as session:
                await set_disabled(session, email=GRACE, disabled=True)

        ends: dict[str, Callable[[], Awaitable[object]]] = {
            "leaves": lambda: grace.remove(organisation, grace.id),
            "removed": lambda: ada.remove(organisation, grace.id),
            "demoted": lambda: ada.put(organisation, GRACE, "developer"),
            "disabled": disable,
            "deleted": lambda: client.delete("/users/me", headers=grace.headers),
        }
        return ends[request.param]

    async def test_it_ends_and_its_link_joins_nobody(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: Person,
        grace: Person,
        organisation: str,
        as_admin: Headers,
        end: Callable[[], Awaitable[object]],
    ) -> None:
        token = await invite(app, grace, organisation)
        [invited] = (await ada.members(organisation))["invitations"]
        bob = await sign_up(client, BOB)

        await end()

        assert_problem(await accept(bob, token), 400, "invalid_link")
        assert (await ada.members(organisation))["invitations"] == []
        acts = await actions_on(client, as_admin, f"{invited['id']}@{organisation}")
        assert acts == ["invitation_withdrawn", "member_invited"]


@pytest.mark.any_database
class TestOthersStay:
    async def test_an_owner_who_becomes_an_admin_no_longer_appoints_owners(
        self, ada: Person, grace: Person, organisation: str
    ) -> None:
        await ada.put(organisation, GRACE, "owner")
        await grace.put(organisation, BOB, "owner")
        await grace.put(organisation, CARL, "admin")

        await ada.put(organisation, GRACE, "admin")

        invited = (await ada.members(organisation))["invitations"]
        assert [each["email"] for each in invited] == [CARL]

    async def test_an_invitation_that_someone_else_has_renewed_stays(
        self, ada: Person, grace: Person, organisation: str
    ) -> None:
        await grace.put(organisation, BOB, "viewer")
        await ada.put(organisation, BOB, "viewer")

        await ada.remove(organisation, grace.id)

        assert len((await ada.members(organisation))["invitations"]) == 1

    async def test_those_of_other_organisations_and_people_stay(
        self, ada: Person, grace: Person, organisation: str
    ) -> None:
        elsewhere = await grace.create_organisation("Compilers")
        await grace.put(elsewhere, BOB, "viewer")
        await ada.put(organisation, CARL, "viewer")

        await ada.remove(organisation, grace.id)

        assert len((await grace.members(elsewhere))["invitations"]) == 1
        assert len((await ada.members(organisation))["invitations"]) == 1

    async def test_it_does_not_return_with_the_right(
        self, ada: Person, grace: Person, organisation: str
    ) -> None:
        await grace.put(organisation, BOB, "viewer")

        for role in ("viewer", "admin"):
            await ada.put(organisation, GRACE, role)

        assert (await ada.members(organisation))["invitations"] == []


@pytest.mark.costly
async def test_no_invitation_outlives_a_demotion_at_the_same_time(
    ada: Person, grace: Person, organisation: str, database: Database
) -> None:
    for turn in range(10):
        await ada.put(organisation, GRACE, "admin")

        answers = await asyncio.gather(
            grace.put(organisation, f"friend{turn}@example.com", "viewer"),
            ada.put(organisation, GRACE, "viewer"),
        )

        assert answers[0].status_code in (202, 403)
        assert answers[1].status_code == 200
        assert await count(database, Invitation) == 0
