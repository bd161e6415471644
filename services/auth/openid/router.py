"""The authorization endpoint, and the pages on which people sign in and consent.

An error is shown to the person as long as the client's redirect URI is not verified; then the
client gets it. So this is no open redirect.
"""

from time import time

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from services.auth.audit.failures import FailureLog
from services.auth.audit.requests import Address, Failures
from services.auth.clients.redirects import with_parameters
from services.auth.openid import service
from services.auth.openid.browsers import (
    AppBrowser,
    Browser,
    StaleFormError,
    read_query,
    read_sent_form,
)
from services.auth.openid.errors import AuthorizationError, RequestRejectedError
from services.auth.openid.pages import code_page, consent_page, sign_in_page
from services.auth.openid.requests import AuthorizationRequest, Step
from services.auth.openid.returns import AUTHORIZE, Return
from services.auth.openid.service import Prepared, Recipient
from services.auth.pages.html import PAGE_RESPONSES, page, see_other
from services.auth.providers.service import link_after_password
from services.auth.providers.states import Link, open_link, seal
from services.auth.sessions.service import SignedIn, find_signed_in
from services.auth.sessions.sign_in import Entered, sign_in_with_code, sign_in_with_password
from services.auth.state import AppIssuer
from services.auth.tokens.service import Issuer
from services.common.errors import ServiceError, Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="sign-in")


@router.get(
    "/authorize",
    response_class=HTMLResponse,
    responses=PAGE_RESPONSES | error_responses(Unavailable),
)
@public
async def authorize(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address, failures: Failures
) -> Response:
    """Send the person in the browser back to a client with a code (RFC 6749 §4.1, OpenID Connect
    Core §3.1.2). They first sign in and consent on pages, if they have not done so. Required:
    `response_type=code`, `client_id`, `redirect_uri`, `code_challenge`,
    `code_challenge_method=S256`."""
    back = Return(AUTHORIZE, read_query(request))
    async with issuer.database.snapshot() as session:
        try:
            recipient = await service.find_recipient(session, query=back.query)
        except RequestRejectedError as error:
            return _reject(failures, error, address=address)
        try:
            asked = recipient.read()
            signed_in = await find_signed_in(session, secret=browser.secret)
            prepared = await service.prepare(
                session, issuer, recipient=recipient, request=asked, signed_in=signed_in
            )
        except AuthorizationError as error:
            return _refuse(issuer, recipient, error, address=address)
    if prepared.step is Step.SIGN_IN or signed_in is None:
        secret = browser.identify()
        shown = sign_in_page(
            secret=secret,
            back=back,
            form_targets=[recipient.source],
            providers=browser.providers,
            email=asked.login_hint,
        )
        return browser.remember(shown, secret)
    if prepared.step is Step.CONSENT:
        return _ask_for_consent(browser, back, recipient, prepared, signed_in)
    return await _grant(issuer, recipient, asked, signed_in, prepared, address=address)


@router.post("/authorize", include_in_schema=False)
@public
async def authorize_by_form(request: Request) -> Response:
    """Accept the same parameters as a form (OpenID Connect Core §3.1.2.1).

    The redirect makes the browser send its cookie, which it does not with another site's form.
    """
    return redirect_to_query(AUTHORIZE, await request.body())


@router.post("/sign-in", include_in_schema=False)
@public
async def sign_in(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address
) -> Response:
    """Check e-mail address and password."""
    sent = await read_sent_form(request, browser)
    back = sent.require_back()
    email, sealed = sent.fields.get("email", ""), sent.fields.get("link", "")
    link = open_link(sealed, secret=sent.secret, now=time())
    try:
        entered = await sign_in_with_password(
            issuer,
            email=email,
            password=sent.fields.get("password", ""),
            replaced=sent.secret,
            address=address,
        )
    except ServiceError as error:
        shown = sign_in_page(
            secret=sent.secret,
            back=back,
            form_targets=await service.find_form_targets(issuer, back),
            providers=[] if link else browser.providers,
            email=email,
            link=sealed if link else "",
            problem=error.detail,
            status=error.status,
        )
        return _with_retry_after(shown, error)
    return await go_on(issuer, browser, back, entered, link=link, address=address)


@router.post("/sign-in/code", include_in_schema=False)
@public
async def enter_code(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address
) -> Response:
    """Check the code of the second factor, after the password."""
    sent = await read_sent_form(request, browser)
    back = sent.require_back()
    async with issuer.database.snapshot() as session:
        pending = await find_signed_in(session, secret=sent.secret)
    if pending is None:
        raise StaleFormError(back)
    if pending.authenticated_at is not None:  # the form was sent twice
        return see_other(back.after_sign_in().url)
    sealed = sent.fields.get("link", "")
    link = open_link(sealed, secret=sent.secret, now=time())
    try:
        entered = await sign_in_with_code(
            issuer,
            user=pending.user,
            code=sent.fields.get("totp", ""),
            replaced=sent.secret,
            address=address,
        )
    except ServiceError as error:
        wrong = "This code is wrong, has expired, or was used before."
        shown = code_page(
            secret=sent.secret,
            back=back,
            form_targets=await service.find_form_targets(issuer, back),
            link=sealed if link else "",
            problem=wrong if error.code == "invalid_grant" else error.detail,
            status=error.status,
        )
        return _with_retry_after(shown, error)
    return await go_on(issuer, browser, back, entered, link=link, address=address)


@router.post("/consent", include_in_schema=False)
@public
async def consent(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address, failures: Failures
) -> Response:
    """Take a person's decision about an app."""
    sent = await read_sent_form(request, browser)
    back = sent.require_back()
    if back.path != AUTHORIZE:
        raise StaleFormError(back)
    async with issuer.database.transaction() as session:
        try:
            recipient = await service.find_recipient(session, query=back.query)
        except RequestRejectedError as error:
            return _reject(failures, error, address=address)
        try:
            asked = recipient.read()
            signed_in = await find_signed_in(session, secret=browser.secret)
            prepared = await service.prepare(
                session, issuer, recipient=recipient, request=asked, signed_in=signed_in
            )
            if prepared.step is Step.SIGN_IN or signed_in is None:
                return see_other(back.url)
            if sent.fields.get("decision") != "allow":
                raise AuthorizationError("access_denied", "The user denied the request.")
            if prepared.organisation is None:
                await service.give_consent(
                    session, user=signed_in.user, client=recipient.client, scope=prepared.scope
                )
        except AuthorizationError as error:
            return _refuse(issuer, recipient, error, address=address)
    return await _grant(issuer, recipient, asked, signed_in, prepared, address=address)


def redirect_to_query(path: str, body: bytes) -> Response:
    """Redirect a form to the same path with its fields as the query."""
    try:
        query = body.decode("ascii")
    except ValueError:
        query = ""
    if not query.isprintable() or any(character in query for character in '#\\ "<>'):
        query = ""
    return see_other(f"{path}?{query}")


def _ask_for_consent(
    browser: Browser, back: Return, recipient: Recipient, prepared: Prepared, signed_in: SignedIn
) -> Response:
    secret = browser.identify()
    shown = consent_page(
        secret=secret,
        back=back,
        recipient=recipient,
        scope=prepared.scope,
        email=signed_in.user.email,
        organisation=prepared.organisation,
    )
    return browser.remember(shown, secret)


async def _grant(
    issuer: Issuer,
    recipient: Recipient,
    asked: AuthorizationRequest,
    signed_in: SignedIn,
    prepared: Prepared,
    *,
    address: str,
) -> Response:
    async with issuer.database.transaction() as session:
        code = await service.create_code(
            session,
            recipient=recipient,
            request=asked,
            signed_in=signed_in,
            prepared=prepared,
            address=address,
        )
    return _answer(issuer, recipient, {"code": code})


def _reject(failures: FailureLog, error: RequestRejectedError, *, address: str) -> Response:
    """Show an error to the person."""
    failures.note("authorization_rejected", target=error.client_id, address=address)
    return page("This link does not work", error.text, status=400)


def _refuse(
    issuer: Issuer, recipient: Recipient, error: AuthorizationError, *, address: str
) -> Response:
    """Send an error to the client."""
    target = recipient.client.client_id
    issuer.failures.note("authorization_refused", target=target, address=address)
    problem = {"error": error.code, "error_description": error.description}
    return _answer(issuer, recipient, problem)


def _answer(issuer: Issuer, recipient: Recipient, parameters: dict[str, str]) -> Response:
    """Send the browser back to the client, with its state and our issuer (RFC 9207)."""
    state = {} if recipient.state is None else {"state": recipient.state}
    sent = {**parameters, **state, "iss": issuer.settings.issuer}
    return see_other(with_parameters(recipient.redirect_uri, sent))


async def go_on(
    issuer: Issuer,
    browser: Browser,
    back: Return,
    entered: Entered,
    *,
    link: Link | None,
    address: str,
) -> Response:
    """Continue after the person has shown who they are, with the browser's new cookie.

    Args:
        link: the person at a provider to link to the user who signs in.
    """
    if entered.needs_code:
        targets = await service.find_form_targets(issuer, back)
        sealed = seal(link, secret=entered.secret) if link else ""
        shown: Response = code_page(
            secret=entered.secret, back=back, form_targets=targets, link=sealed
        )
        return browser.remember(shown, entered.secret)
    if link is not None:
        async with issuer.database.transaction() as session:
            signed_in = await find_signed_in(session, secret=entered.secret)
            if signed_in is not None:
                await link_after_password(
                    session, user=signed_in.user, waiting=link, address=address
                )
    return browser.remember(see_other(back.after_sign_in().url), entered.secret)


def _with_retry_after(response: Response, error: ServiceError) -> Response:
    if "Retry-After" in error.headers:
        response.headers["Retry-After"] = error.headers["Retry-After"]
    return response
