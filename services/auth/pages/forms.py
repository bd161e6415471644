"""Read the forms of auth's pages."""

from collections.abc import Mapping

from fastapi import Request

from services.common.http.forms import parse_form


async def read_fields(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; empty if it is malformed."""
    try:
        return dict(parse_form(await request.body()))
    except ValueError:
        return {}
