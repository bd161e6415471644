"""API keys and clients that belong to an organisation."""

import pytest
from httpx import AsyncClient

from services.auth.clients.credentials import secret_digest
from services.auth.models import Client
from services.common.db.database import Database
from tests.integration.auth.conftest import ADMIN, Headers, bearer
from tests.integration.auth.organisations.people import BOB, Person, assert_problem, signed_in
from tests.integration.auth.organisations.verifier import Verifier

pytestmark = pytest.mark.any_database


@pytest.fixture
async def organisation(organisation: str, ada: Person, bob: Person) -> str:
    """The id of an organisation that Ada owns, and where Bob is a developer."""
    assert (await ada.put(organisation, BOB, "developer")).status_code == 200
    return organisation


class TestCredentialsOfOrganisations:
    """API keys and clients belong to the organisation, and outlive the member who made them."""

    async def new_key(self, client: AsyncClient, headers: Headers) -> dict[str, str]:
        answer = await client.post("/api-keys", json={"name": "site"}, headers=headers)
        assert answer.status_code == 201, answer.text
        key: dict[str, str] = answer.json()
        return key

    async def new_client(
        self, client: AsyncClient, headers: Headers, **body: str
    ) -> dict[str, str]:
        answer = await client.post("/clients", json={"name": "job", **body}, headers=headers)
        assert answer.status_code == 201, answer.text
        created: dict[str, str] = answer.json()
        return created

    async def grant(
        self, client: AsyncClient, created: dict[str, str], **form: str
    ) -> dict[str, str]:
        credentials = (created["client_id"], created["client_secret"])
        fields = {"grant_type": "client_credentials"} | form
        document: dict[str, str] = (
            await client.post("/token", data=fields, auth=credentials)
        ).json()
        return document

    @pytest.mark.parametrize("end", ["removed", "deleted", "disabled"])
    async def test_they_outlive_the_member_who_made_them(
        self,
        client: AsyncClient,
        ada: Person,
        bob: Person,
        organisation: str,
        inference: tuple[str, str],
        as_admin: Headers,
        end: str,
    ) -> None:
        as_member = await bob.acting_for(organisation)
        key, job = await self.new_key(client, as_member), await self.new_client(client, as_member)
        token = (await self.grant(client, job))["access_token"]
        if end == "removed":
            await ada.remove(organisation, bob.id)
        elif end == "deleted":
            await client.delete("/users/me", headers=bob.headers)
        else:
            body = {"disabled": True}
            await client.patch(f"/users/{bob.id}", json=body, headers=as_admin)

        found = [
            (await client.post("/introspect", data={"token": each}, auth=inference)).json()
            for each in (key["key"], token, (await self.grant(client, job))["access_token"])
        ]

        assert [(each["active"], each["sub"]) for each in found] == [(True, organisation)] * 3
        assert "user_id" not in found[1]
        as_ada = await ada.acting_for(organisation)
        keys = (await client.get("/api-keys", headers=as_ada)).json()["api_keys"]
        clients = (await client.get("/clients", headers=as_ada)).json()["clients"]
        assert [each["id"] for each in keys] == [key["id"]]
        assert [each["client_id"] for each in clients] == [job["client_id"]]

    async def test_a_pod_of_the_previous_version_does_not_take_its_client_for_a_services(
        self, client: AsyncClient, bob: Person, organisation: str, database: Database
    ) -> None:
        job = await self.new_client(client, await bob.acting_for(organisation))
        wrong = job | {"client_secret": "x"}

        async with database.snapshot() as session:
            stored = await session.get_one(Client, job["client_id"])

        assert (stored.owner_id, stored.organisation_id) == (None, organisation)
        assert stored.secret_sha256 != secret_digest(job["client_secret"])
        assert (await self.grant(client, wrong))["error"] == "invalid_client"

    async def test_other_accounts_neither_see_nor_change_them(
        self, client: AsyncClient, bob: Person, organisation: str
    ) -> None:
        as_member = await bob.acting_for(organisation)
        key, job = await self.new_key(client, as_member), await self.new_client(client, as_member)

        keys = (await client.get("/api-keys", headers=bob.headers)).json()["api_keys"]
        clients = (await client.get("/clients", headers=bob.headers)).json()["clients"]
        answers = [
            await client.delete(f"/api-keys/{key['id']}", headers=bob.headers),
            await client.post(f"/api-keys/{key['id']}/rotate", headers=bob.headers),
            await client.delete(f"/clients/{job['client_id']}", headers=bob.headers),
        ]

        assert (keys, clients) == ([], [])
        assert [answer.status_code for answer in answers] == [404] * 3

    async def test_its_client_is_only_for_that_account(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        job = await self.new_client(client, await bob.acting_for(organisation))
        own = await self.new_client(client, bob.headers)

        granted = await self.grant(client, job, account=organisation)
        refused = [
            await self.grant(client, job, account=bob.id),
            await self.grant(client, own, account=organisation),
        ]
        introspected = [
            (
                await client.post(
                    "/introspect",
                    data={"token": await person.token(account)},
                    auth=(job["client_id"], job["client_secret"]),
                )
            ).json()["active"]
            for person, account in ((ada, organisation), (bob, bob.id), (ada, ada.id))
        ]

        assert granted["scope"] == "predict usage:read"
        assert [each["error"] for each in refused] == ["invalid_request"] * 2
        assert introspected == [True, False, False]

    async def test_a_client_manages_keys_and_is_no_person(
        self, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        as_ada = await ada.acting_for(organisation)
        job = await self.new_client(client, as_ada, scope="keys:write")
        as_job = bearer((await self.grant(client, job))["access_token"])

        key = await self.new_key(client, as_job)
        rotated = await client.post(f"/api-keys/{key['id']}/rotate", headers=as_job)
        listed = (await client.get("/api-keys", headers=as_ada)).json()["api_keys"]
        clients = await client.get("/clients", headers=as_job)
        refused = [
            await client.get("/users/me", headers=as_job),
            await client.get("/userinfo", headers=as_job),
            await client.delete("/users/me", headers=as_job),
            await client.post("/clients", json={"name": "heir"}, headers=as_job),
        ]

        assert [each["id"] for each in listed] == [rotated.json()["id"]]
        assert clients.status_code == 200
        for answer in refused:
            assert_problem(answer, 403, "login_needed")

    async def test_roles_without_the_scope_make_none(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        await ada.put(organisation, BOB, "viewer")
        as_member = await bob.acting_for(organisation)

        answers = [
            await client.post("/api-keys", json={"name": "x"}, headers=as_member),
            await client.post(
                "/clients", json={"name": "x", "scope": "usage:read"}, headers=as_member
            ),
            await client.get("/clients", headers=as_member),
            await client.delete("/clients/tgc_x", headers=as_member),
        ]

        for answer in answers:
            assert_problem(answer, 403, "insufficient_scope")

    async def test_a_client_gets_no_scope_that_its_creator_lacks(
        self, client: AsyncClient, bob: Person, organisation: str
    ) -> None:
        as_member = await bob.acting_for(organisation)

        for scope in ("members:write", "billing:manage", "admin", "billing:write"):
            body = {"name": "x", "scope": scope}
            answer = await client.post("/clients", json=body, headers=as_member)

            assert answer.status_code == 422

    async def test_no_client_of_an_organisation_is_a_platform_administrator(
        self, client: AsyncClient, as_admin: Headers
    ) -> None:
        root = await signed_in(client, ADMIN)
        organisation = await root.create_organisation()
        headers = await root.acting_for(organisation)

        body = {"name": "x", "scope": "admin"}
        answer = await client.post("/clients", json=body, headers=headers)

        assert answer.status_code == 422

    async def test_deleting_its_client_revokes_the_tokens(
        self, client: AsyncClient, ada: Person, organisation: str, verifier: Verifier
    ) -> None:
        as_ada = await ada.acting_for(organisation)
        job = await self.new_client(client, as_ada, scope="keys:write")
        token = (await self.grant(client, job))["access_token"]

        await client.delete(f"/clients/{job['client_id']}", headers=as_ada)
        await verifier.follow()

        assert not await verifier.accepts(token)
        assert (await client.get("/api-keys", headers=bearer(token))).status_code == 401
