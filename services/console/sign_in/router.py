"""Sign in at auth and come back, switch between accounts, and sign out."""

import hmac
from urllib.parse import quote, urlencode, urlsplit

import structlog
from fastapi import Request, Response

from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.console.apis import auth as auth_api
from services.console.apis.auth import Tokens
from services.console.apis.calls import ApiProblem, ApiUnavailable, TokenRejected
from services.console.design.pages import see_other, show
from services.console.sessions.guards import SentForm, SignedIn
from services.console.sessions.returns import safe_return
from services.console.sessions.visitors import Cookies, Session, read_visitor
from services.console.settings import ConsoleSettings
from services.console.sign_in.openid import (
    Flow,
    authorization_query,
    begin,
    check_id_token,
    continued,
    new_session,
    open_flow,
    seal_flow,
)
from services.console.state import Apis, AppApis, AppSettings

router = new_router(tag="sign-in")

CALLBACK = "/sign-in/callback"
_TRY_RENEWAL_AGAIN_S = 60
_UNAVAILABLE = "Signing in is unavailable at the moment. Try again in a minute."
_INTERRUPTED = (
    "The sign-in took too long, was begun in another browser, or your browser sends no cookies."
)

log = structlog.get_logger()


@router.get("/sign-in")
@public
async def sign_in(
    request: Request,
    apis: AppApis,
    settings: AppSettings,
    return_to: str = "/",
    silent: str = "",
    lost: str = "",
    provider: str = "",
) -> Response:
    """Send the visitor to auth, which knows them already or asks for their password.

    With a company's provider, auth leads there at once.
    """
    goal = safe_return(return_to)
    if _is_elsewhere(request, settings):  # a cookie that is set here would not reach the callback
        return see_other(f"{settings.url}/sign-in?{urlencode({'return_to': goal})}")
    visitor = read_visitor(request)
    if lost:
        return _lost(request, goal)
    if silent and not await apis.auth.is_up():
        return _without_renewal(request, goal)
    known = visitor.session or visitor.expired
    return begin_flow(
        request,
        goal=goal,
        silent=bool(silent) and known is not None and known.id_token is not None,
        account=known.account if known and not known.is_personal else None,
        login_hint=known.email if known else None,
        provider=provider,
    )


def begin_flow(
    request: Request,
    *,
    goal: str,
    silent: bool,
    account: str | None,
    login_hint: str | None = None,
    provider: str = "",
) -> Response:
    """Return the redirect to auth.

    Args:
        goal: the page to show afterwards.
        silent: whether auth must not show a page.
        account: the account to be signed in for; None for the personal one.
        login_hint: the e-mail address to fill in.
        provider: the name of the company's provider to sign in with, if any.
    """
    settings: ConsoleSettings = request.app.state.settings
    cookies: Cookies = request.app.state.cookies
    visitor = read_visitor(request)
    known = visitor.session or visitor.expired
    flow = begin(browser=visitor.browser, return_to=goal, silent=silent, account=account)
    query = authorization_query(
        flow,
        state=seal_flow(flow, cookies.sealer),
        client_id=settings.client_id,
        redirect_uri=f"{settings.url}{CALLBACK}",
        login_hint=login_hint,
        id_token=known.id_token if known else None,
    )
    path = f"/authorize?{query}"
    if provider:
        path = f"/sign-in/with/{quote(provider, safe='')}?{urlencode({'continue': path})}"
    response = see_other(f"{settings.auth_url}{path}")
    if visitor.is_new:
        cookies.write_browser(response, visitor.browser)
    return response


@router.get(CALLBACK)
@public
async def callback(
    request: Request,
    apis: AppApis,
    settings: AppSettings,
    state: str = "",
    code: str = "",
    iss: str = "",
    error: str = "",
) -> Response:
    """Take the answer of auth: a code, or an error."""
    cookies: Cookies = request.app.state.cookies
    flow = open_flow(state, browser=cookies.read_browser(request), sealer=cookies.sealer)
    if flow is None or (iss and iss != settings.auth_url):
        return _failed(request, _INTERRUPTED, goal="/", status=400)
    if error or not code:
        return _refused(request, flow, error)
    try:
        tokens = await auth_api.exchange_code(
            apis.auth,
            client_id=settings.client_id,
            code=code,
            verifier=flow.verifier,
            redirect_uri=f"{settings.url}{CALLBACK}",
        )
        user_id = check_id_token(
            tokens,
            keys=await auth_api.find_keys(apis.auth),
            issuer=settings.auth_url,
            client_id=settings.client_id,
            nonce=flow.nonce,
        )
        session = await open_session(apis, tokens)
        if not hmac.compare_digest(session.user_id, user_id):
            raise ValueError("the tokens are about two people")
    except ApiUnavailable:
        return _failed(request, _UNAVAILABLE, goal=flow.return_to, status=503)
    except (ApiProblem, TokenRejected, ValueError, KeyError) as problem:
        log.warning("sign_in_failed", reason=type(problem).__name__)
        return _failed(request, _INTERRUPTED, goal=flow.return_to, status=400)
    visitor = read_visitor(request)
    response = see_other(flow.return_to)
    former = (visitor.session or visitor.expired) if flow.silent else None
    cookies.write_session(response, continued(session, former=former))
    return response


@router.post("/account")
async def switch_account(session: SignedIn, form: SentForm, request: Request) -> Response:
    """Continue with another of the visitor's accounts."""
    goal = safe_return(form.get("return_to", "/"))
    account = form.get("account", session.user_id)
    return begin_flow(
        request,
        goal=goal,
        silent=session.id_token is not None,
        account=None if account == session.user_id else account,
        login_hint=session.email,
    )


@router.post("/sign-out")
@public
async def sign_out(request: Request, form: SentForm, apis: AppApis) -> Response:
    """End the session here and at auth."""
    settings: ConsoleSettings = request.app.state.settings
    cookies: Cookies = request.app.state.cookies
    visitor = read_visitor(request)
    known = visitor.session or visitor.expired
    if visitor.session is not None:
        try:
            await auth_api.revoke(apis.auth, token=visitor.session.token)
        except (ApiUnavailable, ApiProblem):
            log.warning("token_revocation_failed")
    goal = "/"
    if known is not None and known.id_token is not None and await apis.auth.is_up():
        query = {
            "id_token_hint": known.id_token,
            "client_id": settings.client_id,
            "post_logout_redirect_uri": f"{settings.url}/",
        }
        goal = f"{settings.auth_url}/logout?{urlencode(query)}"
    response = see_other(goal)
    cookies.delete_session(response)
    return response


async def open_session(apis: Apis, tokens: Tokens) -> Session:
    """Return the session of someone with new tokens.

    Raises:
        ApiUnavailable, ApiProblem, TokenRejected: auth does not respond correctly.
    """
    user = await auth_api.read_user(apis.auth, token=tokens.access_token)
    session = new_session(tokens, user=user, account_name=None, role="owner")
    if session.is_personal:
        return session
    organisations = await auth_api.list_organisations(apis.auth, token=tokens.access_token)
    found = next((each for each in organisations if each.id == session.account), None)
    if found is None:
        raise ValueError("the visitor is not a member of this account")
    return new_session(tokens, user=user, account_name=found.name, role=found.role)


def _refused(request: Request, flow: Flow, error: str) -> Response:
    """Answer when auth grants nothing: the visitor is signed out, or has changed their mind."""
    cookies: Cookies = request.app.state.cookies
    if flow.silent:
        response = see_other(flow.return_to)
        cookies.delete_session(response)
        return response
    if flow.account is not None:  # another person signed in, or they are no longer a member
        return begin_flow(request, goal=flow.return_to, silent=False, account=None)
    if error == "access_denied":
        return see_other("/")
    return _failed(request, _INTERRUPTED, goal=flow.return_to, status=400)


def _without_renewal(request: Request, goal: str) -> Response:
    """Go on with a token that is still valid while auth is unavailable."""
    cookies: Cookies = request.app.state.cookies
    session = read_visitor(request).session
    if session is None:
        return _failed(request, _UNAVAILABLE, goal=goal, status=503)
    response = see_other(goal)
    cookies.write_session(response, session.renewed_later(seconds=_TRY_RENEWAL_AGAIN_S))
    return response


def _lost(request: Request, goal: str) -> Response:
    """Explain that a form was not accepted because nobody is signed in any more."""
    text = "Your session has ended, so nothing was changed. Sign in to send the form again."
    return _failed(request, text, goal=goal, status=200, title="Please sign in again")


def _failed(
    request: Request, text: str, *, goal: str, status: int, title: str = "You are not signed in"
) -> Response:
    again = f"/sign-in?{urlencode({'return_to': goal})}"
    return show(
        request, "sign_in/failed.html.j2", status=status, title=title, text=text, again=again
    )


def _is_elsewhere(request: Request, settings: ConsoleSettings) -> bool:
    """Return whether the browser reached the console under another name than its own."""
    host = request.headers.get("host", "")
    return bool(host) and host != urlsplit(settings.url).netloc
