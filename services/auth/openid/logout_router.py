"""Sign out at the request of a client (OpenID Connect RP-Initiated Logout 1.0)."""

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from services.auth.audit.requests import Address, Failures
from services.auth.clients.credentials import find_client
from services.auth.clients.redirects import is_registered, with_parameters
from services.auth.openid.browsers import AppBrowser, read_query, read_sent_form
from services.auth.openid.errors import RequestRejectedError
from services.auth.openid.id_tokens import Hint, read_hint
from services.auth.openid.pages import sign_out_page, signed_out_page
from services.auth.openid.requests import Parameters, read_parameters, read_state
from services.auth.openid.router import redirect_to_query
from services.auth.pages.html import PAGE_RESPONSES, page, see_other
from services.auth.sessions.cookies import new_secret
from services.auth.sessions.service import end_session, find_signed_in
from services.auth.state import AppIssuer
from services.auth.tokens.service import Issuer
from services.common.errors import Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="sign-in")


@router.get(
    "/logout",
    response_class=HTMLResponse,
    responses=PAGE_RESPONSES | error_responses(Unavailable),
)
@public
async def sign_out(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address, failures: Failures
) -> Response:
    """Sign the person in the browser out. With an `id_token_hint` about them, at once, and
    `post_logout_redirect_uri` (exactly a registered one, but for the port of a loopback
    address) sends them there; otherwise a page asks
    first."""
    try:
        parameters = read_parameters(read_query(request))
        hint, goal = await _read(issuer, parameters)
    except RequestRejectedError as error:
        failures.note("logout_rejected", target=error.client_id, address=address)
        return page("This link does not work", error.text, status=400)
    async with issuer.database.snapshot() as session:
        signed_in = await find_signed_in(session, secret=browser.secret)
    if signed_in is not None and (hint is None or hint.user_id != signed_in.user.id):
        secret = browser.identify()
        return browser.remember(sign_out_page(secret=secret), secret)
    if browser.secret is not None:
        async with issuer.database.transaction() as session:
            await end_session(session, secret=browser.secret, address=address)
    gone = see_other(goal) if goal else signed_out_page()
    return browser.remember(gone, new_secret())


@router.post("/logout", include_in_schema=False)
@public
async def sign_out_by_form(request: Request) -> Response:
    """Accept the same parameters as a form."""
    return redirect_to_query("/logout", await request.body())


@router.post("/logout/confirm", include_in_schema=False)
@public
async def confirm_sign_out(
    request: Request, issuer: AppIssuer, browser: AppBrowser, address: Address
) -> Response:
    """Sign out after the person has confirmed it."""
    sent = await read_sent_form(request, browser)
    async with issuer.database.transaction() as session:
        await end_session(session, secret=sent.secret, address=address)
    return browser.remember(signed_out_page(), new_secret())


async def _read(issuer: Issuer, parameters: Parameters) -> tuple[Hint | None, str | None]:
    """Return whom the client means, and where to send them afterwards.

    Raises:
        RequestRejectedError: a parameter is repeated, invalid or contradicts another.
    """
    values = parameters.values
    client_id = values.get("client_id")
    if parameters.repeated:
        raise RequestRejectedError("The address is malformed.", client_id=client_id)
    token = values.get("id_token_hint")
    hint = await read_hint(issuer, token=token) if token is not None else None
    if (token is not None and hint is None) or (
        hint is not None and client_id not in (None, hint.client_id)
    ):
        raise RequestRejectedError("The app that sent you here made a mistake.")
    uri = values.get("post_logout_redirect_uri")
    if uri is None:
        return hint, None
    async with issuer.database.snapshot() as session:
        client = await find_client(session, client_id=hint.client_id) if hint else None
    if client is None or not is_registered(uri, client.post_logout_redirect_uris):
        text = "The app that sent you here did not name an address that it is registered with."
        raise RequestRejectedError(text, client_id=client_id)
    state = read_state(parameters)
    return hint, uri if state is None else with_parameters(uri, {"state": state})
