"""API keys at auth."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from services.console.apis.calls import Api, read_json

Document = dict[str, Any]


async def list_keys(auth: Api, *, token: str) -> list[Document]:
    """Return the account's API keys, newest first, without their texts."""
    document = await auth.get("/api-keys", token=token)
    return list(reversed(document["api_keys"]))


async def create_key(auth: Api, *, token: str, wanted: Mapping[str, Any]) -> Document:
    """Create an API key; its `key` is shown only once."""
    response = await auth.call("POST", "/api-keys", token=token, json=dict(wanted))
    document: Document = read_json(response, api=auth.name)
    return document


async def rotate_key(auth: Api, *, token: str, key_id: str, overlap_seconds: int) -> Document:
    """Replace an API key; the old one works for some seconds more."""
    path = f"/api-keys/{quote(key_id, safe='')}/rotate"
    body = {"overlap_seconds": overlap_seconds}
    response = await auth.call("POST", path, token=token, json=body)
    document: Document = read_json(response, api=auth.name)
    return document


async def delete_key(auth: Api, *, token: str, key_id: str) -> None:
    """Delete an API key."""
    await auth.call("DELETE", f"/api-keys/{quote(key_id, safe='')}", token=token)
