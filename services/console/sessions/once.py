"""Do what a form asks for once, however often the form is sent."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

_MAX_REMEMBERED = 1000

Result = TypeVar("Result")


def form_id(session_id: str, form: Mapping[str, str]) -> str:
    """Return the id of a form and of the session in which it is sent."""
    return f"{session_id} {form.get('once', '')}"


class OnceForms:
    """Remembers the latest forms of this process; a form sent twice gets the first result.

    This is for a double click, whose requests follow each other on one connection. What moves money
    has an `Idempotency-Key` at its API besides.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, asyncio.Task[Any]] = OrderedDict()

    async def run(self, form_id: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the work for a form; a failed one may be sent again.

        Args:
            form_id: what `form_id` returns.
        """
        known = self._known.get(form_id)
        if known is None:
            known = asyncio.ensure_future(_as_coroutine(work))
            self._known[form_id] = known
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        try:
            result: Result = await asyncio.shield(known)
        except Exception:
            self._known.pop(form_id, None)
            raise
        return result


async def _as_coroutine(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()
