"""Parse HTML forms within limits."""

from urllib.parse import parse_qsl

MAX_FIELDS = 20
FORM = "application/x-www-form-urlencoded"


def parse_form(body: bytes, *, max_fields: int = MAX_FIELDS) -> list[tuple[str, str]]:
    """Return the names and values of an URL-encoded form; fields without a value are left out.

    Raises:
        ValueError: it is not UTF-8, or has more than `max_fields` fields.
    """
    return parse_qsl(body.decode(), errors="strict", max_num_fields=max_fields)
