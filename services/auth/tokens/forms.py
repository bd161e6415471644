"""Read an OAuth request: its form and its client's credentials.

The framework does not read the form, so that every error has the format of RFC 6749 §5.2.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from fastapi import Request

from services.auth.callers import FIRST_PARTY
from services.auth.tokens.errors import InvalidRequest, MalformedClient
from services.common.http.forms import FORM, parse_form


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The credentials that a confidential client sent."""

    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class OAuthForm:
    """A request to one of the OAuth endpoints; the first-party client sends no `client`."""

    fields: Mapping[str, str]
    client: ClientCredentials | None

    def require(self, name: str) -> str:
        """Return a required parameter.

        Raises:
            InvalidRequest: it is missing.
        """
        if name not in self.fields:
            raise InvalidRequest(f"Parameter {name} is required.")
        return self.fields[name]


async def read_form(request: Request) -> OAuthForm:
    """Read the request's form and client credentials.

    Raises:
        InvalidRequest: the form is malformed, a parameter is repeated, or the client authenticates
            in two ways.
        MalformedClient: the Basic header is malformed.
        HTTPException: the body is too large or compressed.
    """
    content_type, _, _ = request.headers.get("content-type", "").partition(";")
    if content_type.strip().lower() != FORM:
        raise InvalidRequest(f"The Content-Type must be {FORM}.")
    try:
        pairs = parse_form(await request.body())
    except ValueError as error:
        raise InvalidRequest("The form is malformed.") from error
    fields = dict(pairs)  # a parameter without a value counts as omitted (§3.2)
    if len(fields) != len(pairs):
        raise InvalidRequest("A parameter is repeated.")
    return OAuthForm(fields=fields, client=_client(request, fields))


def _client(request: Request, fields: Mapping[str, str]) -> ClientCredentials | None:
    basic_client = _basic_client(request)
    client_id = fields.get("client_id", "")
    client_secret = fields.get("client_secret", "")
    if basic_client is None:
        has_client = client_secret or client_id not in ("", FIRST_PARTY)
        return ClientCredentials(client_id, client_secret) if has_client else None
    if client_secret or client_id not in ("", basic_client.client_id):
        raise InvalidRequest("Use only one client authentication method.")
    return basic_client


def _basic_client(request: Request) -> ClientCredentials | None:
    """Return the credentials in an HTTP Basic header (RFC 6749 §2.3.1: both parts form-encoded).

    Empty credentials count as missing, because Swagger UI sends them if no client was entered.
    Other schemes are not client authentication.
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
        raise MalformedClient() from error
    if not colon:
        raise MalformedClient()
    if client_id in ("", FIRST_PARTY) and not client_secret:
        return None
    return ClientCredentials(client_id, client_secret)
