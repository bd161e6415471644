"""Cursors: where the next page of a list begins, as opaque text."""

import base64
import binascii

from services.common.errors import BodyInvalid


def to_cursor(*parts: str) -> str:
    """Return a cursor of ASCII texts without spaces."""
    return base64.urlsafe_b64encode(" ".join(parts).encode()).decode()


def from_cursor(cursor: str, *, parts: int) -> list[str]:
    """Return the texts that a cursor is made of.

    Raises:
        BodyInvalid: the cursor is invalid.
    """
    try:
        found = base64.urlsafe_b64decode(cursor).decode("ascii").split(" ")
    except (binascii.Error, ValueError) as error:
        raise invalid_cursor() from error
    if len(found) != parts:
        raise invalid_cursor()
    return found


def invalid_cursor() -> BodyInvalid:
    """Return the error of a cursor that this service has not made."""
    return BodyInvalid([{"loc": ["query", "cursor"], "msg": "Invalid cursor."}])
