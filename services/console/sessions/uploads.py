"""Forms with a file, which is read within a limit and kept in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import UploadFile

from services.console.sessions.guards import check_token, read_form

_MULTIPART = "multipart/form-data"
_MAX_FIELDS = 20
_MAX_DISCARDED_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class File:
    """A file that someone chose."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class FormWithFile:
    """The fields of a form, and its file if one was chosen; empty fields are left out."""

    fields: Mapping[str, str]
    file: File | None = None
    is_too_large: bool = False
    """Whether it was not even parsed, because it is larger than any body may be."""


async def _read(request: Request) -> FormWithFile:
    """Return a form that the console has shown to this visitor, with a file or without.

    What is too large is received, but neither kept nor parsed: browsers show no answer before they
    have sent everything.

    Raises:
        FormExpired: the CSRF token is missing or another visitor's.
        HTTPException: it is no form.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MULTIPART:
        return FormWithFile(await read_form(request))
    if int(request.headers.get("content-length", 0)) > request.app.state.max_body_bytes:
        await _discard(request)
        return FormWithFile({}, is_too_large=True)
    fields, file = dict[str, str](), None
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if value.filename:
                    file = File(value.filename, await value.read())
            elif value:
                fields[name] = value
    check_token(request, fields.pop("csrf", ""))
    return FormWithFile(fields, file)


async def _discard(request: Request) -> None:
    received = 0
    while received < _MAX_DISCARDED_BYTES:
        message = await request.receive()
        received += len(message.get("body", b""))
        if not message.get("more_body"):
            return
    raise HTTPException(413, "The file is too large.")


SentFile = Annotated[FormWithFile, Depends(_read)]
"""The fields of a form and its file."""
