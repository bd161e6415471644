"""Reading an OAuth request: its form and its client's credentials.

The form is not left to the framework, so that every failure has the shape of RFC 6749 §5.2.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request

from services.auth.callers import FIRST_PARTY
from services.auth.tokens.errors import InvalidClient, InvalidRequest

_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 20


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a confidential client showed."""

    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class OAuthForm:
    """A request to one of the OAuth endpoints; `client` is None for the first-party client."""

    fields: Mapping[str, str]
    client: ClientCredentials | None

    def need(self, name: str) -> str:
        """A parameter that must be there.

        Raises:
            InvalidRequest: it is not.
        """
        if name not in self.fields:
            raise InvalidRequest(f"The parameter {name} is missing.")
        return self.fields[name]


async def read_form(request: Request) -> OAuthForm:
    """The request's form and client.

    Raises:
        InvalidRequest: not one well-formed form, a parameter twice, or two ways of authentication.
        InvalidClient: a malformed Basic header.
        HTTPException: the body is too large or compressed.
    """
    content_type, _, _ = request.headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != _FORM:
        raise InvalidRequest(f"Parameters are sent as {_FORM}.")
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(text, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise InvalidRequest("The form is malformed.") from error
    fields = dict(pairs)  # a parameter without a value counts as omitted (§3.2)
    if len(fields) != len(pairs):
        raise InvalidRequest("A parameter was sent more than once.")
    return OAuthForm(fields=fields, client=_client(request, fields))


def _client(request: Request, fields: Mapping[str, str]) -> ClientCredentials | None:
    in_header = _basic_client(request)
    client_id = fields.get("client_id", "")
    client_secret = fields.get("client_secret", "")
    if in_header is None:
        named = client_secret or client_id not in ("", FIRST_PARTY)
        return ClientCredentials(client_id, client_secret) if named else None
    if client_secret or client_id not in ("", in_header.client_id):
        raise InvalidRequest("A client authenticates in one way only.")
    return in_header


def _basic_client(request: Request) -> ClientCredentials | None:
    """The client of an HTTP Basic header (RFC 6749 §2.3.1: both parts form-encoded).

    An empty one counts as none: Swagger UI sends it when no client was typed in. Other schemes
    are no client authentication.
    """
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise InvalidRequest("More than one Authorization header.")
    scheme, _, encoded = (headers or [""])[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, client_secret = text.partition(":")
        client_id = unquote_plus(client_id, errors="strict")
        client_secret = unquote_plus(client_secret, errors="strict")
    except ValueError as error:
        raise InvalidClient() from error
    if not colon:
        raise InvalidClient()
    if client_id in ("", FIRST_PARTY) and not client_secret:
        return None
    return ClientCredentials(client_id, client_secret)
