"""What administrators note on an account; only they see it, but it is in the user's export."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import record
from services.auth.models import AccountNote, User
from services.auth.notes import repository
from services.auth.organisations.memberships import find_organisation
from services.auth.users.service import lock_user
from services.common.errors import NotFound, ServiceError

MAX_NOTES = 100
"""Notes on one account."""


class AccountNotFound(NotFound):
    """Neither a user nor an organisation has this id."""

    code = "account_not_found"
    detail = "Neither a user nor an organisation has this id."


class NoteNotFound(NotFound):
    """There is no such note."""

    code = "note_not_found"
    detail = "There is no such note."


class TooManyNotes(ServiceError):
    """The account already has the maximum number of notes."""

    status = 409
    code = "too_many_notes"
    detail = f"An account can have at most {MAX_NOTES} notes; delete one first."


async def list_notes(
    session: AsyncSession, *, account_id: str
) -> Sequence[tuple[AccountNote, str | None]]:
    """Return the notes on an account, newest first, each with the e-mail address of its author."""
    return await repository.list_notes(session, account_id=account_id, limit=MAX_NOTES)


async def add_note(
    session: AsyncSession, *, account_id: str, text: str, author: User, address: str
) -> AccountNote:
    """Note something on an account.

    The user is locked first, so that the note is not left behind if the user is being deleted.

    Raises:
        AccountNotFound: neither a user nor an organisation has this id.
        TooManyNotes: the account has `MAX_NOTES`.
    """
    if (
        await lock_user(session, user_id=account_id) is None
        and await find_organisation(session, organisation_id=account_id) is None
    ):
        raise AccountNotFound()
    if await repository.count_notes(session, account_id=account_id) >= MAX_NOTES:
        raise TooManyNotes()
    note = AccountNote(
        id=str(uuid.uuid4()),
        account_id=account_id,
        author_id=author.id,
        text=text,
        created_at=datetime.now(UTC),
    )
    await repository.add_note(session, note)
    await record(session, "note_created", actor=author.id, target=account_id, address=address)
    return note


async def delete_note(session: AsyncSession, *, note_id: str, actor: User, address: str) -> None:
    """Delete a note.

    Raises:
        NoteNotFound: there is no such note.
    """
    note = await repository.lock_note(session, note_id=note_id)
    if note is None:
        raise NoteNotFound()
    await repository.delete_note(session, note)
    await record(session, "note_deleted", actor=actor.id, target=note.account_id, address=address)


async def delete_notes_on(session: AsyncSession, *, account_id: str) -> None:
    """Delete all notes on an account that is deleted itself."""
    await repository.delete_notes(session, account_id=account_id)
