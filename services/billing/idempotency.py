"""Calls that move money are made once, however often they are sent under their `Idempotency-Key`.

A call is announced in a transaction of its own, so that a second one sees it running; what it does
and its answer are committed together. So a process that dies leaves an announcement and nothing
else, and after a while the next call takes its place.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.database import in_transaction
from services.billing.models import IdempotencyRecord as Record
from services.common.db import Database
from services.common.errors import BadRequest, ServiceError

ABANDONED_AFTER = timedelta(minutes=1)
"""A call running for so long, many times a transaction's deadline, has died."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")

T = TypeVar("T", bound=BaseModel)


class KeyMissing(BadRequest):
    """A call that moves money needs an `Idempotency-Key` of 1 to 255 printable characters."""

    code = "idempotency_key_missing"
    detail = "Send an Idempotency-Key of 1 to 255 printable ASCII characters."


class KeyReused(ServiceError):
    """The `Idempotency-Key` was used for another body."""

    status = 422
    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used for another body."


class StillRunning(ServiceError):
    """The first call under this `Idempotency-Key` is still running."""

    status = 409
    code = "still_running"
    detail = "The first call under this Idempotency-Key is still running."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class CallKey:
    """What makes two calls the same call."""

    caller: str
    key: str
    path: str


def _key(request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> str:
    given = request.headers.getlist("idempotency-key")
    if len(given) != 1 or idempotency_key is None or not _KEY.fullmatch(idempotency_key):
        raise KeyMissing()
    return idempotency_key


IdempotencyKey = Annotated[str, Depends(_key)]


async def once(
    database: Database,
    *,
    call: CallKey,
    body: BaseModel,
    answer: type[T],
    work: Callable[[AsyncSession], Awaitable[T]],
    now: datetime,
) -> T:
    """Do `work` in a transaction, unless this call was made before: then answer what it answered.

    A call that fails is forgotten, so that it may be tried again under its key.

    Raises:
        KeyReused: the key came with another body.
        StillRunning: the first call has not been answered yet.
        Unavailable: the call may or may not have been made; the same key finds out.
    """
    digest = blake2b(body.model_dump_json().encode(), digest_size=16).hexdigest()
    first = await in_transaction(
        database, lambda session: _announce(session, call=call, digest=digest, now=now)
    )
    if first is not None:
        return answer.model_validate(first)

    async def work_and_note(session: AsyncSession) -> T:
        record = await _lock(session, call)
        if record is None or record.started_at != now or record.response is not None:
            raise StillRunning()  # this call took so long that another has taken its place
        result = await work(session)
        record.response = result.model_dump(mode="json")
        return result

    try:
        return await in_transaction(database, work_and_note)
    except ServiceError:
        await in_transaction(database, lambda session: _forget(session, call=call, started_at=now))
        raise


async def _announce(
    session: AsyncSession, *, call: CallKey, digest: str, now: datetime
) -> Any | None:
    """Note that a call runs; or what it answered before."""
    record = await _lock(session, call)
    if record is None:
        await session.execute(
            insert(Record).values(
                caller=call.caller,
                key=call.key,
                path=call.path,
                request=digest,
                started_at=now,
                response=None,
            )
        )
        return None
    if record.request != digest:
        raise KeyReused()
    if record.response is not None:
        return record.response
    if now - record.started_at < ABANDONED_AFTER:
        raise StillRunning()
    record.started_at = now
    return None


async def _lock(session: AsyncSession, call: CallKey) -> Record | None:
    record: Record | None = await session.scalar(select(Record).where(_is(call)).with_for_update())
    return record


async def _forget(session: AsyncSession, *, call: CallKey, started_at: datetime) -> None:
    unanswered = (Record.started_at == started_at, Record.response.is_(None))
    await session.execute(delete(Record).where(_is(call), *unanswered))


def _is(call: CallKey) -> ColumnElement[bool]:
    return and_(Record.caller == call.caller, Record.key == call.key, Record.path == call.path)
