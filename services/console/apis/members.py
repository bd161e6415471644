"""Organisations and their members at auth."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from services.console.apis.calls import Api, read_json

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Members:
    """The members of an organisation, and those who are invited."""

    members: list[Document]
    invitations: list[Document]


async def create_organisation(auth: Api, *, token: str, name: str) -> Document:
    """Create an organisation, which the visitor owns."""
    response = await auth.call("POST", "/organisations", token=token, json={"name": name})
    document: Document = read_json(response, api=auth.name)
    return document


async def list_members(auth: Api, *, token: str, organisation: str) -> Members:
    """Return the members of an organisation."""
    document = await auth.get(_path(organisation), token=token)
    return Members(document["members"], document["invitations"])


async def put_member(auth: Api, *, token: str, organisation: str, email: str, role: str) -> bool:
    """Add or invite a member, or change a role; return whether an invitation was mailed."""
    body = {"email": email, "role": role}
    response = await auth.call("PUT", _path(organisation), token=token, json=body)
    return response.status_code == 202


async def delete_member(auth: Api, *, token: str, organisation: str, member: str) -> None:
    """Remove a member, leave, or withdraw an invitation."""
    path = f"{_path(organisation)}/{quote(member, safe='')}"
    await auth.call("DELETE", path, token=token)


def _path(organisation: str) -> str:
    return f"/organisations/{quote(organisation, safe='')}/members"
