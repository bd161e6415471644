"""Calls that move money take effect once, however often their `Idempotency-Key` is sent.

A call is recorded as running in its own transaction, so that a concurrent repeat sees it. Its
effects and its response are then committed together. A process that dies in between leaves only the
record, and after a while the next call takes over.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import IdempotencyRecord as Record
from services.common.db.database import AppDatabase, Database
from services.common.db.retrying import in_transaction
from services.common.errors import BadRequest, ServiceError
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

ABANDONED_AFTER = timedelta(minutes=1)
"""A call that has run for this long, many times a transaction's deadline, is dead."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")

T = TypeVar("T", bound=BaseModel)


class KeyMissing(BadRequest):
    """A call that moves money needs an `Idempotency-Key` of 1 to 255 printable characters."""

    code = "idempotency_key_missing"
    detail = "Send an Idempotency-Key of 1 to 255 printable ASCII characters."


class KeyReused(ServiceError):
    """The `Idempotency-Key` was used with a different body."""

    status = 422
    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used with a different body."


class StillRunning(ServiceError):
    """The first call with this `Idempotency-Key` is still running."""

    status = 409
    code = "still_running"
    detail = "The first call with this Idempotency-Key is still running; retry in 1 s."

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class CallKey:
    """The identity of a call: two calls with the same one are repeats."""

    caller: str
    key: str
    path: str


ONCE_ERRORS = (KeyMissing, KeyReused, StillRunning)
"""The errors that a call with an `Idempotency-Key` adds."""


async def _key(request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> str:
    given = request.headers.getlist("idempotency-key")
    if len(given) != 1 or idempotency_key is None or not _KEY.fullmatch(idempotency_key):
        raise KeyMissing()
    return idempotency_key


async def run_once(
    database: Database,
    *,
    call: CallKey,
    body: BaseModel,
    response: type[T],
    work: Callable[[AsyncSession], Awaitable[T]],
    now: datetime,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Run `work` in a transaction, or return the earlier response if the call is a repeat.

    A failed call is forgotten, so that it can be retried with the same key.

    Args:
        prepare: runs before the transaction of a call that is no repeat; what takes long.

    Raises:
        KeyReused: the key was used with a different body.
        StillRunning: the first call is still running.
        Unavailable: the call may or may not have taken effect; repeat it with the same key.
    """
    digest = blake2b(body.model_dump_json().encode(), digest_size=16).hexdigest()
    first = await in_transaction(
        database, lambda session: _start(session, call=call, digest=digest, now=now)
    )
    if first is not None:
        return response.model_validate(first)

    async def work_and_record(session: AsyncSession) -> T:
        record = await _lock(session, call)
        if record is None or record.started_at != now or record.response is not None:
            raise StillRunning()  # this call took so long that another took over
        result = await work(session)
        record.response = result.model_dump(mode="json")
        return result

    try:
        if prepare is not None:
            await prepare()
        return await in_transaction(database, work_and_record)
    except ServiceError:
        await in_transaction(database, lambda session: _forget(session, call=call, started_at=now))
        raise


@dataclass(frozen=True, slots=True)
class MoneyCall:
    """An administrator's call that moves money, and takes effect once."""

    database: Database
    caller: Caller
    key: str
    now: datetime

    @property
    def author(self) -> str:
        """Who makes the call."""
        return self.caller.author

    async def run(
        self,
        path: str,
        *,
        body: BaseModel,
        response: type[T],
        work: Callable[[AsyncSession], Awaitable[T]],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Run `prepare` and then `work` as `run_once` does.

        Args:
            path: what the key is for; the same key may be used for another path.
        """
        return await run_once(
            self.database,
            call=CallKey(self.caller.account, self.key, path),
            body=body,
            response=response,
            work=work,
            now=self.now,
            prepare=prepare,
        )


async def _money_call(
    caller: Annotated[Caller, Depends(RequireScope("admin"))],
    key: Annotated[str, Depends(_key)],
    database: AppDatabase,
) -> MoneyCall:
    return MoneyCall(database, caller, key, datetime.now(UTC))


AdminCall = Annotated[MoneyCall, Depends(_money_call)]
"""For endpoints that need the scope `admin` and an `Idempotency-Key`."""


async def _start(session: AsyncSession, *, call: CallKey, digest: str, now: datetime) -> Any | None:
    """Record that a call is running, or return its earlier response."""
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
