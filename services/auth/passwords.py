"""Passwords: which are taken, and how they are hashed without stopping everything else."""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from passlib.context import CryptContext

from services.auth.common_passwords import COMMON_PASSWORDS
from services.common.errors import BodyInvalid, Unavailable

MIN_CHARS = 8
MAX_CHARS = 1024
DEFAULT_THREADS = min(os.cpu_count() or 1, 8)
"""More would not be quicker, and a container often sees more CPUs than it may use."""

T = TypeVar("T")


def check_new_password(password: str) -> None:
    """Refuse a password that is too short, too long or too common (NIST SP 800-63B §5.1.1.2).

    There are no rules of composition, and nothing is cut off or changed before hashing.

    Raises:
        BodyInvalid: naming the field, not the password.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        problem = f"A password has {MIN_CHARS} to {MAX_CHARS} characters."
    elif "\0" in password:
        problem = "A password cannot contain NUL."
    elif password.casefold() in COMMON_PASSWORDS:
        problem = "This password is among the first that anyone would guess."
    else:
        return
    raise BodyInvalid([{"loc": ["body", "password"], "msg": problem}])


class PasswordHasher:
    """Owns the threads that run argon2id, one per CPU, with a bounded queue before them.

    The cost is OWASP's (19 MiB, 2 passes, 1 lane), so memory is bounded by the number of threads.

    Args:
        threads: how many passwords are hashed at once.
        queue: how many more may wait for a thread.
    """

    def __init__(self, *, threads: int = DEFAULT_THREADS, queue: int = 64) -> None:
        self._places = threads + queue
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=19456,
            argon2__time_cost=2,
            argon2__parallelism=1,
        )
        # What an unknown account's password is compared with, made by the same rules.
        self._nobody: str = self._context.hash(os.urandom(16).hex())

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, taken before any other work: who gets none costs nothing.

        Raises:
            Unavailable: the queue is full.
        """
        if self._places == 0:
            raise Unavailable("Too many passwords are being checked right now.")
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    async def hash(self, password: str) -> str:
        """The argon2id hash to store."""
        return await self._run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether a password is the one stored; without one, False after the same work."""
        if len(password) > MAX_CHARS or "\0" in password:
            password, stored = "", None  # never taken at registration, so it is nobody's
        against = stored or self._nobody
        right = await self._run(lambda: bool(self._context.verify(password, against)))
        return right and stored is not None

    def close(self) -> None:
        self._threads.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
