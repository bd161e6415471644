"""A token is for one account: which one, with which scopes, and when it ends."""

import asyncio

import pytest
from httpx import AsyncClient
from jose import jwt

from services.auth.models import RefreshFamily
from services.auth.roles import ROLE_SCOPES
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADMIN,
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
    NOBODY,
    Person,
    claims_in,
    sign_in,
    sign_up,
    signed_in,
)
from tests.integration.auth.organisations.verifier import Verifier

pytestmark = pytest.mark.any_database


@pytest.fixture
async def organisation(organisation: str, ada: Person, bob: Person) -> str:
    """The id of an organisation that Ada owns, and where Bob is a developer."""
    assert (await ada.put(organisation, BOB, "developer")).status_code == 200
    return organisation


class TestPassword:
    async def test_without_an_account_the_token_is_for_the_personal_one(
        self, ada: Person, organisation: str
    ) -> None:
        for answer in (await ada.sign_in(), await ada.sign_in(ada.id), await ada.sign_in("")):
            claims = claims_in(answer)

            assert (claims["sub"], claims["user_id"]) == (ada.id, ada.id)

    async def test_by_default_it_has_the_scopes_of_the_role(
        self, ada: Person, bob: Person, organisation: str
    ) -> None:
        for role, scopes in ROLE_SCOPES.items():
            await ada.put(organisation, BOB, role)

            answer = await bob.sign_in(organisation)

            claims = claims_in(answer)
            assert (claims["sub"], claims["user_id"]) == (organisation, bob.id)
            assert claims["scope"] == answer.json()["scope"] == " ".join(scopes)

    async def test_a_scope_beyond_the_role_is_refused(self, bob: Person, organisation: str) -> None:
        narrow = await bob.sign_in(organisation, scope="predict")
        beyond = await bob.sign_in(organisation, scope="predict members:write")
        admin = await bob.sign_in(organisation, scope="admin")

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
        answers = [await eve.sign_in(account) for account in strange]

        for answer in answers:
            assert_refused(answer, "invalid_request")
            assert answer.json() == answers[0].json()

    async def test_a_wrong_password_shows_nothing_about_accounts(
        self, client: AsyncClient, organisation: str
    ) -> None:
        answers = [
            await sign_in(client, BOB, password="wrong password", account=account)
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
        token = (await bob.sign_in(organisation)).json()["refresh_token"]
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
            token = (await bob.sign_in(account)).json()["refresh_token"]
            fields = {"grant_type": "refresh_token", "refresh_token": token}

            refused = await client.post("/token", data=fields | {"account": other})

            assert_refused(refused, "invalid_request")
            assert (await client.post("/token", data=fields)).status_code == 200

    async def test_it_follows_the_role(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        token = (await bob.sign_in(organisation)).json()["refresh_token"]
        await ada.put(organisation, BOB, "admin")
        fields = {"grant_type": "refresh_token", "refresh_token": token}

        promoted = await client.post("/token", data=fields)
        await ada.put(organisation, BOB, "viewer")
        fields["refresh_token"] = promoted.json()["refresh_token"]
        demoted = await client.post("/token", data=fields)

        assert claims_in(promoted)["scope"] == "predict usage:read keys:write"
        assert_refused(demoted, "invalid_grant")


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
        answer = (await bob.sign_in(organisation)).json()
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

    @pytest.mark.costly
    @pytest.mark.every_database
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

    @pytest.mark.every_database
    async def test_a_sign_in_or_refresh_that_races_with_the_removal_yields_no_valid_token(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str, verifier: Verifier
    ) -> None:
        refresh = (await bob.sign_in(organisation)).json()["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh}

        removal, *answers = await asyncio.gather(
            ada.remove(organisation, bob.id),
            client.post("/token", data=form),
            *(bob.sign_in(organisation) for _ in range(4)),
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


async def test_the_sign_ins_of_a_removed_member_are_deleted(
    ada: Person, bob: Person, organisation: str, database: Database
) -> None:
    await bob.token(organisation)
    before = await count(database, RefreshFamily)

    await ada.remove(organisation, bob.id)

    assert await count(database, RefreshFamily) == before - 1
