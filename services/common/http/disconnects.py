"""Whether the client of a request has closed the connection, or its own side of it.

Most such clients are gone. A few have only finished sending, and read the response; so a request is
answered nevertheless, but work that would have to wait first can be saved.
"""

from typing import Any

from starlette.types import Scope

_CLOSED = "tollgate.client_closed"


def mark_closed(scope: Any) -> None:
    """Record in a request's scope that its client has closed the connection, or its side of it."""
    scope[_CLOSED] = True


def has_closed(scope: Scope) -> bool:
    """Return whether a request's client has closed the connection, or its side of it."""
    return _CLOSED in scope
