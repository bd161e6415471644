"""Devices without a browser (RFC 8628): their endpoint, and the pages to approve them."""

from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from services.auth.audit.requests import Address
from services.auth.openid import devices
from services.auth.openid.browsers import AppBrowser, Browser, SentForm, read_query, read_sent_form
from services.auth.openid.device_pages import confirm_page, user_code_page
from services.auth.openid.errors import AuthorizationError, RequestRejectedError
from services.auth.openid.pages import sign_in_page
from services.auth.openid.requests import read_parameters
from services.auth.openid.returns import DEVICE, Return
from services.auth.pages.html import PAGE_RESPONSES, page
from services.auth.sessions.service import SignedIn, find_signed_in
from services.auth.state import AppIssuer
from services.auth.tokens.errors import (
    InvalidClient,
    InvalidRequest,
    InvalidScope,
    TemporarilyUnavailable,
    TooManyAttempts,
    UnauthorizedClient,
    oauth_errors,
)
from services.auth.tokens.forms import read_form
from services.auth.tokens.guesses import TooManyGuesses
from services.auth.tokens.service import Issuer, authenticate_client
from services.common.errors import Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="sign-in")

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {"client_id": {"type": "string"}, "scope": {"type": "string"}},
                    "required": ["client_id"],
                }
            }
        },
    }
}
_START = Return(DEVICE, "")
_UNKNOWN = "This code is unknown, has expired, or was used before."


class DeviceAuthorization(BaseModel):
    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


@router.post(
    "/device_authorization",
    response_model=DeviceAuthorization,
    responses=error_responses(
        InvalidRequest,
        InvalidClient,
        InvalidScope,
        UnauthorizedClient,
        TooManyAttempts,
        TemporarilyUnavailable,
    ),
    openapi_extra=_FORM,
)
@public
async def authorize_device(
    request: Request, response: Response, issuer: AppIssuer, address: Address
) -> DeviceAuthorization:
    """Start to sign in a device without a browser: show its user the `user_code` and the
    `verification_uri`, and ask `/token` with the `device_code` every `interval` seconds."""
    with oauth_errors():
        sent = await read_form(request)
        if sent.client is None:
            raise InvalidClient()
        client = await authenticate_client(issuer, credentials=sent.client, address=address)
        started = await devices.start_device(
            issuer, client=client, scope=sent.fields.get("scope"), address=address
        )
    response.headers["Cache-Control"] = "no-store"
    uri = f"{issuer.settings.issuer}{DEVICE}"
    return DeviceAuthorization(
        device_code=started.device_code,
        user_code=started.user_code,
        verification_uri=uri,
        verification_uri_complete=f"{uri}?user_code={started.user_code}",
        expires_in=int(devices.LIFETIME.total_seconds()),
        interval=devices.INTERVAL_S,
    )


@router.get(
    DEVICE,
    response_class=HTMLResponse,
    responses=PAGE_RESPONSES | error_responses(Unavailable),
)
@public
async def device_page(request: Request, issuer: AppIssuer, browser: AppBrowser) -> Response:
    """Show the form for the code that a device shows; `user_code` fills it in."""
    try:
        parameters = read_parameters(read_query(request))
    except RequestRejectedError as error:
        return page("This link does not work", error.text, status=400)
    code = devices.normalise_user_code(parameters.values.get("user_code", ""))
    shown_code = devices.show_user_code(code) if code else ""
    if await _find(issuer, browser) is None:
        back = Return(DEVICE, f"user_code={shown_code}" if code else "")
        return _ask_to_sign_in(browser, back)
    secret = browser.identify()
    return browser.remember(user_code_page(secret=secret, user_code=shown_code), secret)


@router.post(DEVICE, include_in_schema=False)
@public
async def enter_user_code(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address
) -> Response:
    """Look a code up, and ask the person to approve the device."""
    sent = await read_sent_form(request, browser, start=_START)
    signed_in = await _find(issuer, browser)
    if signed_in is None:
        return _ask_to_sign_in(browser, _START)
    code = _code_in(sent)
    try:
        waiting = await devices.find_device(
            issuer, user_code=code, user=signed_in.user, address=address
        )
    except (TooManyGuesses, AuthorizationError) as error:
        return _failed(sent.secret, error)
    if waiting is None:
        return user_code_page(secret=sent.secret, user_code="", problem=_UNKNOWN, status=400)
    return confirm_page(
        secret=sent.secret, user_code=code, waiting=waiting, email=signed_in.user.email
    )


@router.post(f"{DEVICE}/confirm", include_in_schema=False)
@public
async def decide(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address
) -> Response:
    """Take a person's decision about a device."""
    sent = await read_sent_form(request, browser, start=_START)
    signed_in = await _find(issuer, browser)
    if signed_in is None:
        return _ask_to_sign_in(browser, _START)
    approve = sent.fields.get("decision") == "allow"
    try:
        decided = await devices.decide_device(
            issuer,
            user_code=_code_in(sent),
            signed_in=signed_in,
            approve=approve,
            address=address,
        )
    except (TooManyGuesses, AuthorizationError) as error:
        return _failed(sent.secret, error)
    if not decided:
        return user_code_page(secret=sent.secret, user_code="", problem=_UNKNOWN, status=400)
    if approve:
        return page("Device approved", "Close this page and go back to your device.")
    return page("Device denied", "The device gets no access. You can close this page.")


async def _find(issuer: Issuer, browser: Browser) -> SignedIn | None:
    """Return who is signed in, second factor included."""
    async with issuer.database.snapshot() as session:
        signed_in = await find_signed_in(session, secret=browser.secret)
    if signed_in is None or signed_in.authenticated_at is None:
        return None
    return signed_in


def _code_in(sent: SentForm) -> str:
    return devices.normalise_user_code(sent.fields.get("user_code", ""))


def _ask_to_sign_in(browser: Browser, back: Return) -> Response:
    secret = browser.identify()
    shown = sign_in_page(secret=secret, back=back, form_targets=[], providers=browser.providers)
    return browser.remember(shown, secret)


def _failed(secret: str, error: TooManyGuesses | AuthorizationError) -> Response:
    if isinstance(error, AuthorizationError):
        return page(
            "Device denied", "You do not have the permissions that it requests.", status=403
        )
    shown = user_code_page(secret=secret, user_code="", problem=error.detail, status=error.status)
    shown.headers.update(error.headers)
    return shown
