"""What administrators note on accounts."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from services.auth.models import NOTE_CHARS, AccountNote
from services.auth.notes.service import MAX_NOTES
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, Headers, actions_on, count
from tests.integration.auth.organisations.people import signed_in

NOBODY = "0198a000-0000-7000-8000-00000000dead"


async def add(
    client: AsyncClient, headers: Headers, account: str, text: Any = "Pays late."
) -> dict[str, Any]:
    body = {"account": account, "text": text}
    answer = await client.post("/account-notes", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    note: dict[str, Any] = answer.json()
    return note


async def notes_on(client: AsyncClient, headers: Headers, account: str) -> list[dict[str, Any]]:
    answer = await client.get("/account-notes", params={"account": account}, headers=headers)
    assert answer.status_code == 200, answer.text
    notes: list[dict[str, Any]] = answer.json()["notes"]
    return notes


async def test_notes_are_listed_newest_first_with_their_author(
    client: AsyncClient, ada: dict[str, str], as_admin: Headers
) -> None:
    first = await add(client, as_admin, ada["id"], "  Wants an offer.\r\nCall in March – 5 €! 🙂 ")
    second = await add(client, as_admin, ada["id"])

    assert await notes_on(client, as_admin, ada["id"]) == [second, first]
    assert first["text"] == "Wants an offer.\nCall in March – 5 €! 🙂"
    assert first["author_email"] == "root@example.com"
    assert await notes_on(client, as_admin, NOBODY) == []


async def test_an_organisation_can_have_notes_too(
    client: AsyncClient, ada: dict[str, str], as_admin: Headers
) -> None:
    organisation = await (await signed_in(client, ADA)).create_organisation()

    note = await add(client, as_admin, organisation)

    assert await notes_on(client, as_admin, organisation) == [note]


async def test_a_deleted_note_is_gone_and_both_acts_are_audited(
    client: AsyncClient, ada: dict[str, str], as_admin: Headers
) -> None:
    note = await add(client, as_admin, ada["id"])

    first, second = [
        await client.delete(f"/account-notes/{note['id']}", headers=as_admin) for _ in range(2)
    ]

    assert (first.status_code, second.status_code) == (204, 404)
    assert await notes_on(client, as_admin, ada["id"]) == []
    assert {"note_created", "note_deleted"} <= set(await actions_on(client, as_admin, ada["id"]))


async def test_notes_on_a_user_are_in_the_export_and_go_with_the_user(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers, database: Database
) -> None:
    note = await add(client, as_admin, ada["id"])

    exported = (await client.get("/users/me/export", headers=as_ada)).json()["notes"]
    await client.delete("/users/me", headers=as_ada)

    assert exported == [{"text": note["text"], "created_at": note["created_at"]}]
    assert await count(database, AccountNote) == 0


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"text": ""}, 422),
        ({"text": " \n\t "}, 422),
        ({"text": "x" * (NOTE_CHARS + 1)}, 422),
        ({"text": "bell\a"}, 422),
        ({"text": "\ud800"}, 422),
        ({"text": 5}, 422),
        ({"account": "ada"}, 422),
        ({"account": NOBODY}, 404),
        ({"more": "x"}, 422),
    ],
)
async def test_a_wrong_note_is_refused(
    client: AsyncClient,
    ada: dict[str, str],
    as_admin: Headers,
    changes: dict[str, Any],
    status: int,
) -> None:
    body = {"account": ada["id"], "text": "Pays late."} | changes
    answer = await client.post(
        "/account-notes",
        content=json.dumps(body),
        headers=as_admin | {"Content-Type": "application/json"},
    )

    assert answer.status_code == status
    assert await notes_on(client, as_admin, ada["id"]) == []


@pytest.mark.any_database
async def test_an_account_has_a_bounded_number_of_notes(
    client: AsyncClient, ada: dict[str, str], as_admin: Headers, database: Database
) -> None:
    note = await add(client, as_admin, ada["id"])
    now = datetime.now(UTC)
    async with database.transaction() as session:
        session.add_all(
            AccountNote(
                id=str(uuid4()), account_id=ada["id"], author_id=NOBODY, text="x", created_at=now
            )
            for _ in range(MAX_NOTES - 1)
        )

    body = {"account": ada["id"], "text": "One more"}
    refused = await client.post("/account-notes", json=body, headers=as_admin)
    await client.delete(f"/account-notes/{note['id']}", headers=as_admin)
    taken = await client.post("/account-notes", json=body, headers=as_admin)

    assert (refused.status_code, taken.status_code) == (409, 201)
    assert len(await notes_on(client, as_admin, ada["id"])) == MAX_NOTES


@pytest.mark.any_database
async def test_only_administrators_see_and_write_notes(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
) -> None:
    note = await add(client, as_admin, ada["id"])

    answers = [
        await client.get("/account-notes", params={"account": ada["id"]}, headers=as_ada),
        await client.post(
            "/account-notes", json={"account": ada["id"], "text": "x"}, headers=as_ada
        ),
        await client.delete(f"/account-notes/{note['id']}", headers=as_ada),
    ]

    assert [answer.status_code for answer in answers] == [403] * 3
    assert await notes_on(client, as_admin, ada["id"]) == [note]
