"""Read the clients of concurrent requests together."""

import asyncio

from services.auth.clients import repository
from services.auth.models import Client
from services.common.db.database import Database


class ClientReader:
    """Reads clients with one statement for all requests that wait.

    Requests that arrive during a read wait for the next one, so each sees every change that was
    committed before it arrived.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, asyncio.Future[Client | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, client_id: str) -> Client | None:
        """Return the client with this id, expired or not; it belongs to no session.

        Raises:
            Unavailable: the database is unavailable.
        """
        if not client_id.isascii():  # MySQL cannot compare it with an ASCII column
            return None
        if client_id not in self._waiting:
            self._waiting[client_id] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[client_id]
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await asyncio.shield(waiting)  # others may wait for it, too

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                await self._read(waiting)
        finally:
            self._reading = None

    async def _read(self, waiting: dict[str, asyncio.Future[Client | None]]) -> None:
        try:
            async with self._database.connection() as connection:
                found = await repository.read_clients(connection, client_ids=list(waiting))
        except BaseException as error:
            for future in waiting.values():
                future.set_exception(error)
                future.exception()  # every request that waits may have been cancelled
            if not isinstance(error, Exception):
                raise
            return
        for client_id, future in waiting.items():
            future.set_result(found.get(client_id))
