"""Validate passwords, and hash them without blocking the event loop."""

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
MEMORY_KIB = 19 * 1024
"""With two passes and one lane, the cost that OWASP recommends for argon2id."""
DEFAULT_THREADS = min(os.cpu_count() or 1, 8)
"""More threads would not be faster, and a container often sees more CPUs than it may use."""

T = TypeVar("T")


def check_new_password(password: str) -> None:
    """Reject a password that is too short, too long or too common (NIST SP 800-63B §5.1.1.2).

    There are no composition rules, and passwords are hashed unchanged.

    Raises:
        BodyInvalid: the password is not acceptable; the message does not repeat it.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        problem = f"Must have {MIN_CHARS} to {MAX_CHARS} characters."
    elif "\0" in password:
        problem = "Must not contain NUL."
    elif password.casefold() in COMMON_PASSWORDS:
        problem = "This password is too common; choose another."
    else:
        return
    raise BodyInvalid([{"loc": ["body", "password"], "msg": problem}])


class PasswordHasher:
    """Owns the threads that run argon2id, with a bounded queue.

    Each thread needs `memory_kib` while it hashes, so the number of threads bounds the memory.

    Args:
        threads: number of passwords hashed at once.
        queue: number of passwords that may wait for a thread.
        memory_kib: memory per hash; only tests use less.
    """

    def __init__(
        self, *, threads: int = DEFAULT_THREADS, queue: int = 64, memory_kib: int = MEMORY_KIB
    ) -> None:
        self._places = threads + queue
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=2,
            argon2__parallelism=1,
        )
        # Compared with the passwords of unknown users, so that they take the same time.
        self._dummy_hash: str = self._context.hash(os.urandom(16).hex())

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Reserve a place in the queue; call this first, so that a rejected request costs nothing.

        Raises:
            Unavailable: the queue is full.
        """
        if self._places == 0:
            raise Unavailable("Too many sign-ins at the moment; retry in 1 s.")
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    async def hash(self, password: str) -> str:
        """Return the argon2id hash to store."""
        return await self._run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether a password matches a hash; without a hash, False after the same work."""
        if len(password) > MAX_CHARS or "\0" in password:
            password, stored = "", None  # registration rejects such passwords
        reference = stored or self._dummy_hash
        matches = await self._run(lambda: bool(self._context.verify(password, reference)))
        return matches and stored is not None

    def close(self) -> None:
        self._threads.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
