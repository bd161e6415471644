"""What administrators ask auth."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from services.console.apis.calls import Api

Document = dict[str, Any]

_USERS_AT_ONCE = 1000
_IDS_AT_ONCE = 100
_MAX_PAGES = 5
"""How many pages of users one search reads; the next page of the results goes on from there."""


@dataclass(frozen=True, slots=True)
class Users:
    """A page of users, and where the next one begins."""

    users: list[Document]
    next_cursor: str | None


async def list_users(auth: Api, *, token: str, cursor: str, limit: int) -> Users:
    """Return the users after a cursor, in the order of their ids."""
    parameters = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    page = await auth.get("/users", token=token, params=parameters)
    return Users(page["users"], page["next_cursor"])


async def search_users(auth: Api, *, token: str, text: str, cursor: str, limit: int) -> Users:
    """Return users whose e-mail address or name contains a text.

    Auth lists users, but does not search: a page of results reads a bounded number of them, and can
    have none of them although a later page has some.
    """
    wanted, found = text.casefold(), list[Document]()
    for _ in range(_MAX_PAGES):
        page = await list_users(auth, token=token, cursor=cursor, limit=_USERS_AT_ONCE)
        for user in page.users:
            if wanted in user["email"].casefold() or wanted in (user["name"] or "").casefold():
                found.append(user)
            if len(found) > limit:
                return Users(found[:limit], found[limit - 1]["id"])
        if page.next_cursor is None:
            return Users(found, None)
        cursor = page.next_cursor
    return Users(found, cursor)


async def find_user(auth: Api, *, token: str, user_id: str) -> Document | None:
    """Return a user; None if the account is an organisation's, or auth does not know it."""
    number = UUID(user_id).int
    before = str(UUID(int=number - 1)) if number else ""
    page = await list_users(auth, token=token, cursor=before, limit=1)
    return next((user for user in page.users if user["id"] == user_id), None)


async def find_emails(auth: Api, *, token: str, ids: Iterable[str]) -> dict[str, str]:
    """Return the e-mail addresses of users, by the id of their personal account.

    Args:
        ids: of accounts; those that are of no user are left out.
    """
    wanted = sorted(set(ids))
    pages = await asyncio.gather(
        *(
            auth.get("/users", token=token, params={"id": wanted[first : first + _IDS_AT_ONCE]})
            for first in range(0, len(wanted), _IDS_AT_ONCE)
        )
    )
    return {user["id"]: user["email"] for page in pages for user in page["users"]}


async def set_disabled(auth: Api, *, token: str, user_id: str, disabled: bool) -> None:
    """Disable or enable a user."""
    path = f"/users/{quote(user_id, safe='')}"
    await auth.call("PATCH", path, token=token, json={"disabled": disabled})


async def list_notes(auth: Api, *, token: str, account: str) -> list[Document]:
    """Return what administrators noted on an account, newest first.

    Raises:
        ApiUnavailable: also if auth is of a release without notes.
        TokenRejected, ApiProblem: as `Api.call`.
    """
    found = await auth.get_newer("/account-notes", token=token, params={"account": account})
    notes: list[Document] = found["notes"]
    return notes


async def add_note(auth: Api, *, token: str, account: str, text: str) -> None:
    """Note something on an account."""
    await auth.call("POST", "/account-notes", token=token, json={"account": account, "text": text})


async def delete_note(auth: Api, *, token: str, note: str) -> None:
    """Delete a note."""
    await auth.call("DELETE", f"/account-notes/{quote(note, safe='')}", token=token)


async def list_audit(auth: Api, *, token: str, cursor: str, limit: int) -> Document:
    """Return a page of the audit log, newest first, and the `next_cursor`."""
    parameters = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    entries: Document = await auth.get("/audit", token=token, params=parameters)
    return entries
