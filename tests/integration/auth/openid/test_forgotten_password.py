"""Reset a forgotten password on the pages, from the sign-in page to the new password."""

from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.links.service import LIFETIMES, RESET_PASSWORD
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    PASSWORD,
    browse,
    mails_in,
    next_mail,
)
from tests.integration.auth.openid.signing_in import App, assert_safe_page, wait_for_audit
from tests.integration.auth.pages import Page, link_in, send

pytestmark = pytest.mark.any_database

FORM = "/password-reset"
NOBODY = "nobody@example.com"


async def ask(client: AsyncClient, email: str) -> httpx.Response:
    """Open the form, and send it with an address."""
    return await send(client, await client.get(FORM), email=email)


class TestAskingForALink:
    async def test_a_person_gets_from_the_sign_in_page_to_a_new_password_by_pages_alone(
        self, weather: App, app: FastAPI
    ) -> None:
        shown = await weather.authorize()
        refused = await weather.send(shown, email=ADA, password="forgotten")

        forms = [await weather.browser.get(Page(page).links[0]) for page in (shown, refused)]
        sent = await weather.send(forms[-1], email=" Ada@Example.com ")
        link = link_in(await next_mail(app, to=ADA, subject="Reset your password"))
        opened = await weather.browser.get(link)
        done = await weather.send(opened, password=NEW_PASSWORD)
        consent = await weather.sign_in(await weather.authorize(), password=NEW_PASSWORD)

        for page in (*forms, sent, opened, done):
            assert page.status_code == 200
            assert_safe_page(page)
        assert [Page(page).links for page in (shown, refused)] == [[FORM]] * 2
        assert 'autocomplete="username"' in forms[0].text
        assert "<h1>Check your mail</h1>" in sent.text
        assert Page(consent).actions == ["/consent"]

    async def test_the_page_is_the_same_for_an_address_without_a_user_who_gets_no_mail(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        unknown = await ask(client, NOBODY)
        known = await ask(client, ADA)  # is sent after the other
        await next_mail(app, to=ADA, subject="Reset your password")

        assert (unknown.status_code, unknown.text) == (known.status_code, known.text)
        assert unknown.headers.keys() == known.headers.keys()
        assert ADA not in known.text
        assert mails_in(app) == []

    async def test_the_page_names_how_long_the_link_works(self, client: AsyncClient) -> None:
        assert LIFETIMES[RESET_PASSWORD] == timedelta(hours=1)

        assert "It works for an hour." in (await ask(client, NOBODY)).text

    @pytest.mark.parametrize(
        "email", ["", "ada", "@example.com", "ada@", "a da@example.com", "ada@-.com", "x" * 9000]
    )
    async def test_what_is_no_address_is_kept_and_the_problem_is_beside_it(
        self, client: AsyncClient, email: str
    ) -> None:
        answer = await ask(client, email)

        assert answer.status_code == 422
        assert_safe_page(answer)
        assert Page(answer).fields["email"] == email
        assert 'aria-invalid="true" aria-describedby="email-error"' in answer.text
        assert 'id="email-error">Must be an e-mail address.<' in answer.text

    async def test_hostile_input_is_escaped(self, client: AsyncClient) -> None:
        hostile = "\"><script>alert('1 2')</script>"

        answer = await ask(client, hostile)

        assert answer.status_code == 422
        assert_safe_page(answer)
        assert Page(answer).fields["email"] == hostile

    @pytest.mark.parametrize("email", [ADA, NOBODY])
    async def test_after_too_many_requests_a_page_says_what_to_do(
        self, client: AsyncClient, ada: dict[str, str], email: str
    ) -> None:
        answers = [await ask(client, email) for _ in range(6)]

        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert_safe_page(answers[-1])
        assert 3500 < int(answers[-1].headers["Retry-After"]) <= 3600
        assert "Look for one in your mail, or try again in 60 minutes." in answers[-1].text
        assert Page(answers[-1]).fields["email"] == email

    async def test_the_page_and_the_api_share_their_limit(
        self, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        for _ in range(3):
            await client.post(FORM, json={"email": ADA})
        pages = [(await ask(client, ADA)).status_code for _ in range(3)]

        assert pages == [200, 200, 429]
        assert (await client.post(FORM, json={"email": ADA})).status_code == 429

    async def test_while_the_database_is_away_the_form_keeps_the_address(
        self, client: AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "deadline_s", 0)

        answer = await ask(client, ADA)

        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert 'role="alert">The database is too slow; retry in 1 s.<' in answer.text
        assert Page(answer).fields["email"] == ADA


class TestForms:
    @pytest.mark.parametrize("csrf", [None, "", "x", "é", "x" * 43])
    async def test_a_form_of_another_site_is_refused_and_causes_no_mail(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: dict[str, str],
        database: Database,
        csrf: str | None,
    ) -> None:
        [action] = Page(await client.get(FORM)).actions
        fields = {"email": ADA} | ({} if csrf is None else {"csrf": csrf})

        answer = await client.post(action, data=fields)

        assert answer.status_code == 403
        assert_safe_page(answer)
        assert Page(answer).links == [FORM]
        await wait_for_audit(database, "csrf_rejected", action)
        assert mails_in(app) == []

    @pytest.mark.parametrize("body", [b"", b"\xff", b"csrf=%ff", b"&" * 100, b"{}", b"\0"])
    async def test_a_malformed_form_is_refused(self, client: AsyncClient, body: bytes) -> None:
        [action] = Page(await client.get(FORM)).actions

        answer = await client.post(action, content=body)

        assert answer.status_code == 403
        assert_safe_page(answer)

    async def test_a_form_shown_to_another_browser_is_refused(
        self, app: FastAPI, client: AsyncClient
    ) -> None:
        async with browse(app) as other:
            shown = await other.get(FORM)
        await client.get(FORM)

        assert (await send(client, shown, email=ADA)).status_code == 403

    async def test_an_empty_token_is_none(self, client: AsyncClient) -> None:
        assert Page(await client.get(f"{FORM}?token=")).fields.keys() == {"csrf", "email"}

    async def test_a_link_that_does_not_work_leads_to_a_new_one(self, client: AsyncClient) -> None:
        opened = await client.get(FORM, params={"token": "used"})
        answer = await send(client, opened, password=PASSWORD)

        assert answer.status_code == 400
        assert Page(answer).links == [FORM]
        assert "csrf" not in Page(opened).fields  # the link's token authorises it, without a cookie
