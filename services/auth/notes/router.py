"""`/account-notes`: what administrators note on accounts."""

from datetime import datetime
from typing import Annotated
from unicodedata import category

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.auth.audit.requests import Address
from services.auth.callers import REQUIRE_ADMIN, AdminCaller, LoginNeeded, get_admin
from services.auth.models import NOTE_CHARS, AccountNote
from services.auth.notes import service
from services.common.contracts import AccountId
from services.common.db.database import Snapshot, Transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    error_responses,
)
from services.common.http.routing import new_router

router = new_router(prefix="/account-notes", tag="notes")

_errors = (Unauthenticated, InsufficientScope, LoginNeeded, BodyInvalid)


def _readable(text: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if not text or any(category(each) in ("Cc", "Cs") and each not in "\n\t" for each in text):
        raise PydanticCustomError(
            "note", f"Must be 1 to {NOTE_CHARS} characters, without control characters."
        )
    return text


class NoteCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    account: AccountId
    text: Annotated[str, AfterValidator(_readable)] = Field(
        strict=True, max_length=NOTE_CHARS, description="Plain text; it may have several lines."
    )


class NoteRead(BaseModel):
    id: str
    account: str
    text: str
    author: str = Field(description="Id of the user who wrote it.")
    author_email: str | None = Field(description="Null if that user was deleted.")
    created_at: datetime


class NoteList(BaseModel):
    notes: list[NoteRead] = Field(description="Newest first.")


@router.get("", dependencies=[REQUIRE_ADMIN], responses=error_responses(*_errors))
async def list_notes(
    account: Annotated[AccountId, Query(description="A user's or an organisation's id.")],
    session: Snapshot,
) -> NoteList:
    """List the notes on an account. They are for administrators only.

    Those on a user are part of the user's export, and are deleted with the user.
    """
    notes = await service.list_notes(session, account_id=account)
    return NoteList(notes=[_read(note, email) for note, email in notes])


@router.post(
    "",
    status_code=201,
    responses=error_responses(*_errors, service.AccountNotFound, service.TooManyNotes),
)
async def add_note(
    body: NoteCreate, caller: AdminCaller, session: Transaction, address: Address
) -> NoteRead:
    """Note something on an account."""
    admin = await get_admin(session, caller=caller)
    note = await service.add_note(
        session, account_id=body.account, text=body.text, author=admin, address=address
    )
    return _read(note, admin.email)


@router.delete("/{id}", status_code=204, responses=error_responses(*_errors, service.NoteNotFound))
async def delete_note(
    id: Annotated[str, Path(max_length=36, pattern="^[0-9a-f-]*$")],
    caller: AdminCaller,
    session: Transaction,
    address: Address,
) -> None:
    """Delete a note."""
    admin = await get_admin(session, caller=caller)
    await service.delete_note(session, note_id=id, actor=admin, address=address)


def _read(note: AccountNote, author_email: str | None) -> NoteRead:
    return NoteRead(
        id=note.id,
        account=note.account_id,
        text=note.text,
        author=note.author_id,
        author_email=author_email,
        created_at=note.created_at,
    )
