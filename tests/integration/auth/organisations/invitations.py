"""Invitations of Bob, and how he accepts them."""

from email.message import EmailMessage
from typing import Any

from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.mail.delivery import deliver_due
from tests.integration.auth.conftest import PASSWORD, next_mail, token_in
from tests.integration.auth.organisations.people import BOB, Person


async def invite(app: FastAPI, ada: Person, organisation: str, role: str = "developer") -> str:
    """Invite Bob; return the token in his mail."""
    answer = await ada.put(organisation, BOB, role)
    assert answer.status_code == 202, answer.text
    return token_in(await bobs_mail(app))


async def bobs_mail(app: FastAPI) -> EmailMessage:
    """Return the mail that invites Bob, without waiting until the app sends it by itself."""
    await deliver_due(app.state.post)
    return await next_mail(app, to=BOB, subject="invited to an organisation")


async def register(client: AsyncClient, token: str, email: str = BOB) -> int:
    body = {"email": email, "password": PASSWORD, "invitation": token}
    return (await client.post("/register", json=body)).status_code


async def accept(person: Person, token: str) -> Any:
    return await person.client.post(
        "/invitations/accept", json={"token": token}, headers=person.headers
    )
