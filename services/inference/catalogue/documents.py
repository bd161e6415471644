"""Rendered documents, kept until what they were made from changes."""

import asyncio
import hashlib
from collections.abc import Callable, Hashable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

PUBLIC = "public, max-age=60"
PRIVATE = "private, no-cache"


class Document(NamedTuple):
    """A document's bytes and its entity tag (RFC 9110 §8.8.3)."""

    content: bytes
    etag: str


class Documents:
    """Keeps the newest form of each document; makes it in a thread, for some are large."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, Document]] = {}

    async def get(
        self, name: Hashable, *, made_from: Hashable, make: Callable[[], bytes]
    ) -> Document:
        """Return a document, made anew if what it is made from has changed."""
        kept = self._kept.get(name)
        if kept is not None and kept[0] == made_from:
            return kept[1]
        content = await asyncio.to_thread(make)
        document = Document(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        self._kept[name] = made_from, document
        return document


def respond(
    request: Request,
    document: Document,
    *,
    media_type: str,
    is_public: bool,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a document; 304 if the client has it already (`If-None-Match`).

    Args:
        is_public: whether shared caches may keep it, for a minute.
    """
    caching = {"ETag": document.etag, "Cache-Control": PUBLIC if is_public else PRIVATE}
    all_headers = caching | (headers or {})
    if _has(request.headers.get("if-none-match", ""), document.etag):
        return Response(status_code=304, headers=all_headers)
    return Response(document.content, media_type=media_type, headers=all_headers)


def _has(if_none_match: str, etag: str) -> bool:
    """Return whether the header names the tag, by the weak comparison (RFC 9110 §13.1.2)."""
    given = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in given or etag in given
