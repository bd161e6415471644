"""A token is for one account: which one, with which scopes, and when it ends."""

import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt

from services.auth.clients.credentials import secret_digest
from services.auth.models import Client, RefreshFamily
from services.auth.roles import ROLE_SCOPES
from services.common.contracts import RevocationPage
from services.common.db.database import Database
from services.common.errors import Unauthenticated
from services.common.identity.tokens import TokenVerifier
from tests.integration.auth.conftest import (
    ADA,
    ADMIN,
    ISSUER,
    PASSWORD,
    Headers,
    assert_refused,
    bearer,
    count,
    revoked,
)
from tests.integration.auth.organisations.people import (
    BOB,
    EVE,
    Person,
    assert_problem,
    claims_in,
    log_in,
    sign_up,
    signed_in,
)

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def ada(client: AsyncClient) -> Person:
    return await sign_up(client, ADA)


@pytest.fixture
async def bob(client: AsyncClient) -> Person:
    return await sign_up(client, BOB)


@pytest.fixture
async def organisation(ada: Person, bob: Person) -> str:
    """The id of an organisation that Ada owns, and where Bob is a developer."""
    created = await ada.create_organisation()
    assert (await ada.put(created, BOB, "developer")).status_code == 200
    return created


class TestPassword:
    async def test_without_an_account_the_token_is_for_the_personal_one(
        self, ada: Person, organisation: str
    ) -> None:
        for answer in (await ada.log_in(), await ada.log_in(ada.id), await ada.log_in("")):
            claims = claims_in(answer)

            assert (claims["sub"], claims["user_id"]) == (ada.id, ada.id)

    async def test_by_default_it_has_the_scopes_of_the_role(
        self, ada: Person, bob: Person, organisation: str
    ) -> None:
        for role, scopes in ROLE_SCOPES.items():
            await ada.put(organisation, BOB, role)

            answer = await bob.log_in(organisation)

            claims = claims_in(answer)
            assert (claims["sub"], claims["user_id"]) == (organisation, bob.id)
            assert claims["scope"] == answer.json()["scope"] == " ".join(scopes)

    async def test_a_scope_beyond_the_role_is_refused(self, bob: Person, organisation: str) -> None:
        narrow = await bob.log_in(organisation, scope="predict")
        beyond = await bob.log_in(organisation, scope="predict members:write")
        admin = await bob.log_in(organisation, scope="admin")

        assert claims_in(narrow)["scope"] == "predict"
        assert_refused(beyond, "invalid_scope")
        assert_refused(admin, "invalid_scope")

    async def test_a_platform_administrator_has_that_scope_in_every_account(
        self, client: AsyncClient, as_admin: Headers, ada: Person, organisation: str
    ) -> None:
        await ada.put(organisation, ADMIN, "viewer")
        root = await signed_in(client, ADMIN)

        token = await root.token(organisation)

        assert jwt.get_unverified_claims(token)["scope"] == "usage:read admin"
        assert (await client.get("/users", headers=bearer(token))).status_code == 200

    async def test_an_account_that_does_not_exist_is_refused_like_a_strangers(
        self, client: AsyncClient, bob: Person, organisation: str
    ) -> None:
        eve = await sign_up(client, EVE)

        strange = [organisation, bob.id, NOBODY, "x", "é", "\0", "x" * 300]
        answers = [await eve.log_in(account) for account in strange]

        for answer in answers:
            assert_refused(answer, "invalid_request")
            assert answer.json() == answers[0].json()

    async def test_a_wrong_password_shows_nothing_about_accounts(
        self, client: AsyncClient, organisation: str
    ) -> None:
        answers = [
            await log_in(client, BOB, password="wrong password", account=account)
            for account in (organisation, NOBODY)
        ]

        for answer in answers:
            assert_refused(answer, "invalid_grant")

    async def test_a_token_of_an_organisation_identifies_the_person(
        self, client: AsyncClient, bob: Person, organisation: str, inference: tuple[str, str]
    ) -> None:
        token = await bob.token(organisation)

        own = await client.get("/users/me", headers=bearer(token))
        form = {"token": token}
        introspected = (await client.post("/introspect", data=form, auth=inference)).json()

        assert own.json()["id"] == bob.id
        assert introspected["active"] is True
        assert (introspected["sub"], introspected["user_id"]) == (organisation, bob.id)


class TestRefresh:
    async def test_it_keeps_the_account_and_may_narrow_the_scope(
        self, client: AsyncClient, bob: Person, organisation: str
    ) -> None:
        token = (await bob.log_in(organisation)).json()["refresh_token"]
        fields = {"grant_type": "refresh_token", "refresh_token": token}

        first = await client.post("/token", data=fields | {"account": organisation})
        fields["refresh_token"] = first.json()["refresh_token"]
        second = await client.post("/token", data=fields | {"scope": "usage:read"})

        for answer, scope in ((first, "predict usage:read keys:write"), (second, "usage:read")):
            claims = claims_in(answer)
            assert (claims["sub"], claims["user_id"]) == (organisation, bob.id)
            assert claims["scope"] == scope

    async def test_another_account_is_refused_and_the_token_stays_valid(
        self, client: AsyncClient, bob: Person, organisation: str
    ) -> None:
        for account, other in ((organisation, bob.id), (bob.id, organisation)):
            token = (await bob.log_in(account)).json()["refresh_token"]
            fields = {"grant_type": "refresh_token", "refresh_token": token}

            refused = await client.post("/token", data=fields | {"account": other})

            assert_refused(refused, "invalid_request")
            assert (await client.post("/token", data=fields)).status_code == 200

    async def test_it_follows_the_role(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        token = (await bob.log_in(organisation)).json()["refresh_token"]
        await ada.put(organisation, BOB, "admin")
        fields = {"grant_type": "refresh_token", "refresh_token": token}

        promoted = await client.post("/token", data=fields)
        await ada.put(organisation, BOB, "viewer")
        fields["refresh_token"] = promoted.json()["refresh_token"]
        demoted = await client.post("/token", data=fields)

        assert claims_in(promoted)["scope"] == "predict usage:read keys:write"
        assert_refused(demoted, "invalid_grant")


class Verifier:
    """A service that verifies tokens and follows auth's feed, without its waits."""

    def __init__(self, app: FastAPI, client: AsyncClient, as_service: Headers) -> None:
        self._verifier = TokenVerifier(app.state.issuer.keys, issuer=ISSUER)
        self._client, self._headers, self._after = client, as_service, 0

    async def follow(self) -> None:
        answer = await self._client.get(
            "/revocations", params={"after": self._after}, headers=self._headers
        )
        page = RevocationPage.model_validate_json(answer.content)
        self._after = page.last
        await self._verifier.revoke(page.revocations)

    async def accepts(self, token: str) -> bool:
        try:
            await self._verifier.verify(token.encode())
        except Unauthenticated:
            return False
        return True


@pytest.fixture
async def verifier(app: FastAPI, client: AsyncClient, inference: tuple[str, str]) -> Verifier:
    form = {"grant_type": "client_credentials"}
    token = (await client.post("/token", data=form, auth=inference)).json()["access_token"]
    return Verifier(app, client, bearer(token))


class TestEnds:
    @pytest.mark.parametrize("end", ["removed", "demoted", "left"])
    async def test_who_loses_a_role_loses_the_tokens_for_that_organisation_only(
        self,
        client: AsyncClient,
        ada: Person,
        bob: Person,
        organisation: str,
        verifier: Verifier,
        end: str,
    ) -> None:
        other = await bob.create_organisation("Other")
        answer = (await bob.log_in(organisation)).json()
        token, refresh = answer["access_token"], answer["refresh_token"]
        kept = [await bob.token(account) for account in (other, bob.id)]
        kept.append(await ada.token(organisation))
        assert all([await verifier.accepts(each) for each in (token, *kept)])

        if end == "demoted":
            await ada.put(organisation, BOB, "viewer")
        else:
            await (bob if end == "left" else ada).remove(organisation, bob.id)
        await verifier.follow()

        assert not await verifier.accepts(token)
        assert all([await verifier.accepts(each) for each in kept])
        path = f"/organisations/{organisation}/members"
        assert (await client.get(path, headers=bearer(token))).status_code == 401
        for each in kept:
            assert (await client.get("/users/me", headers=bearer(each))).status_code == 200
        form = {"grant_type": "refresh_token", "refresh_token": refresh}
        assert_refused(await client.post("/token", data=form), "invalid_grant")

    async def test_a_promotion_ends_nothing(
        self,
        client: AsyncClient,
        ada: Person,
        bob: Person,
        organisation: str,
        database: Database,
    ) -> None:
        token = await bob.token(organisation)

        await ada.put(organisation, BOB, "admin")

        assert await revoked(database) == []
        assert (await client.get("/userinfo", headers=bearer(token))).status_code == 200

    async def test_one_who_returns_at_once_gets_valid_tokens_and_old_ones_stay_revoked(
        self, ada: Person, bob: Person, organisation: str, verifier: Verifier, client: AsyncClient
    ) -> None:
        old = []
        for _ in range(3):
            old.append(await bob.token(organisation))
            await ada.remove(organisation, bob.id)
            await ada.put(organisation, BOB, "developer")
        await verifier.follow()

        token = await bob.token(organisation)

        assert await verifier.accepts(token)
        assert not any([await verifier.accepts(each) for each in old])
        for each, status in ((token, 200), *((each, 401) for each in old)):
            answer = await client.get("/userinfo", headers=bearer(each))
            assert answer.status_code == status

    async def test_a_log_in_or_refresh_that_races_with_the_removal_yields_no_valid_token(
        self,
        client: AsyncClient,
        ada: Person,
        bob: Person,
        organisation: str,
        verifier: Verifier,
        database: Database,
    ) -> None:
        refresh = (await bob.log_in(organisation)).json()["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh}

        removal, *answers = await asyncio.gather(
            ada.remove(organisation, bob.id),
            client.post("/token", data=form),
            *(bob.log_in(organisation) for _ in range(4)),
        )
        await verifier.follow()

        assert removal.status_code == 204
        issued = [each.json()["access_token"] for each in answers if each.status_code == 200]
        assert not any([await verifier.accepts(each) for each in issued])
        for each in answers:
            if each.status_code == 200:
                form["refresh_token"] = each.json()["refresh_token"]
                assert_refused(await client.post("/token", data=form), "invalid_grant")

    async def test_a_password_change_ends_the_tokens_for_every_account(
        self, client: AsyncClient, bob: Person, organisation: str, verifier: Verifier
    ) -> None:
        tokens = [await bob.token(account) for account in (organisation, bob.id)]
        body = {"current": PASSWORD, "new": "another long password"}
        await client.post("/users/me/password", json=body, headers=bob.headers)

        await verifier.follow()

        assert not any([await verifier.accepts(each) for each in tokens])
        for each in tokens:
            answer = await client.get("/userinfo", headers=bearer(each))
            assert answer.status_code == 401

    async def test_disabling_a_user_ends_the_tokens_for_every_account(
        self, client: AsyncClient, bob: Person, organisation: str, as_admin: Headers
    ) -> None:
        token = await bob.token(organisation)

        body = {"disabled": True}
        await client.patch(f"/users/{bob.id}", json=body, headers=as_admin)

        assert (await client.get("/userinfo", headers=bearer(token))).status_code == 401


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


async def test_the_log_ins_of_a_removed_member_are_deleted(
    ada: Person, bob: Person, organisation: str, database: Database
) -> None:
    await bob.token(organisation)
    before = await count(database, RefreshFamily)

    await ada.remove(organisation, bob.id)

    assert await count(database, RefreshFamily) == before - 1
