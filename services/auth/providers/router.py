"""Sign in with another provider: send the browser there, and take it back."""

import time

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from services.auth.audit.requests import Address, Failures
from services.auth.openid.browsers import AppBrowser, Browser, read_query
from services.auth.openid.errors import RequestRejectedError
from services.auth.openid.pages import sign_in_page
from services.auth.openid.requests import Parameters, read_parameters
from services.auth.openid.returns import Return, read_return
from services.auth.openid.router import go_on
from services.auth.openid.service import find_form_targets
from services.auth.pages.html import page, see_other
from services.auth.providers import service
from services.auth.providers.client import Person, ProviderClient, ProviderError
from services.auth.providers.service import Found, Outcome
from services.auth.providers.states import (
    MAX_CHARS,
    Link,
    challenge_of,
    new_state,
    nonce_of,
    open_state,
    seal,
    verifier_of,
)
from services.auth.state import AppIssuer
from services.auth.tokens.service import Issuer
from services.common.errors import ServiceError
from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.common.telemetry.requests import log

router = new_router(prefix="/sign-in", tag="sign-in")

_UNAVAILABLE = "Your provider is not responding correctly. Try again, or sign in another way."
_PROBLEMS = {
    Outcome.NO_VERIFIED_EMAIL: "Your provider has not verified an e-mail address for you.",
    Outcome.BY_INVITATION: "Registration is by invitation only; ask the operator to invite you.",
    Outcome.DISABLED: "You cannot sign in.",
}


@router.get("/with/{provider}", include_in_schema=False)
@public
async def begin(
    request: Request,
    provider: str,
    issuer: AppIssuer,
    browser: AppBrowser,
    address: Address,
    failures: Failures,
) -> Response:
    """Send the browser to a provider; `continue` is the page to go on to afterwards."""
    client: ProviderClient = request.app.state.providers
    try:
        parameters = read_parameters(read_query(request))
    except RequestRejectedError as error:
        return page("This link does not work", error.text, status=400)
    back = read_return(parameters.values.get("continue", ""))
    if provider not in client.names or back is None:
        failures.note("provider_rejected", address=address)
        return page("This link does not work", "Start again at the app.", status=400)
    secret = browser.identify()
    state = new_state(provider=provider, back=back.url, now=time.time())
    sealed = seal(state, secret=secret)
    if len(sealed) > MAX_CHARS:
        return page("This link does not work", "The address is too long.", status=400)
    try:
        url = await client.authorization_url(
            provider,
            state=sealed,
            nonce=nonce_of(state, secret=secret),
            challenge=challenge_of(verifier_of(state, secret=secret)),
        )
    except ProviderError as error:
        log.warning("provider_failed", provider=provider, reason=str(error))
        return await _sign_in_again(issuer, browser, back, _UNAVAILABLE, 503)
    return browser.remember(see_other(url), secret)


@router.get("/callback/{provider}", response_class=HTMLResponse, include_in_schema=False)
@public
async def come_back(
    request: Request,
    provider: str,
    issuer: AppIssuer,
    browser: AppBrowser,
    address: Address,
    failures: Failures,
) -> Response:
    """Take the browser back from a provider, and sign the person in."""
    client: ProviderClient = request.app.state.providers
    try:
        parameters = read_parameters(read_query(request))
    except RequestRejectedError:
        parameters = Parameters({}, frozenset())
    state = open_state(
        parameters.find_single("state") or "", secret=browser.secret, now=time.time()
    )
    back = read_return(state.back) if state is not None else None
    if state is None or back is None or browser.secret is None or state.provider != provider:
        failures.note("provider_state_rejected", address=address)
        text = "This sign-in has expired, or began in another browser. Start again at the app."
        return page("Please start again", text, status=403)
    code = parameters.find_single("code")
    try:
        await client.check_issuer(provider, parameters.find_single("iss"))
        if code is None or "error" in parameters.values:
            failures.note("provider_denied", address=address)
            return await _sign_in_again(
                issuer, browser, back, "Your provider did not sign you in.", 400
            )
        person = await client.exchange(
            provider,
            code=code,
            nonce=nonce_of(state, secret=browser.secret),
            verifier=verifier_of(state, secret=browser.secret),
        )
    except ProviderError as error:
        failures.note("provider_failed", address=address)
        log.warning("provider_failed", provider=provider, reason=str(error))
        return await _sign_in_again(issuer, browser, back, _UNAVAILABLE, 503)
    try:
        return await _sign_in(issuer, browser, back, person, address=address, failures=failures)
    except ServiceError as error:
        return await _sign_in_again(issuer, browser, back, error.detail, error.status)


async def _sign_in(
    issuer: Issuer,
    browser: Browser,
    back: Return,
    person: Person,
    *,
    address: str,
    failures: Failures,
) -> Response:
    password_hash = await service.hash_no_password(issuer.hasher)
    async with issuer.database.transaction() as session:
        found = await service.find_or_create(
            session,
            person=person,
            registration=issuer.settings.registration,
            password_hash=password_hash,
            address=address,
        )
        entered = None
        if found.user is not None:
            entered = await service.start_or_ask(
                session,
                user=found.user,
                lifetime_s=issuer.settings.session_seconds,
                replaced=browser.secret,
                address=address,
            )
    if entered is not None:
        return await go_on(issuer, browser, back, entered, link=None, address=address)
    failures.note("provider_sign_in_refused", address=address)
    return await _refuse(issuer, browser, back, person, found)


async def _refuse(
    issuer: Issuer, browser: Browser, back: Return, person: Person, found: Found
) -> Response:
    if found.outcome is not Outcome.PASSWORD_FIRST or person.email is None:
        return await _sign_in_again(issuer, browser, back, _PROBLEMS[found.outcome], 403)
    # The provider has verified that the address is this person's, so they may learn this.
    secret = browser.identify()
    link = Link(person.issuer, person.subject, person.email, int(time.time()))
    shown = sign_in_page(
        secret=secret,
        back=back,
        form_targets=await find_form_targets(issuer, back),
        providers=[],
        email=person.email,
        link=seal(link, secret=secret),
        text="Sign in once with your password to link your provider.",
    )
    return browser.remember(shown, secret)


async def _sign_in_again(
    issuer: Issuer, browser: Browser, back: Return, problem: str, status: int
) -> Response:
    """Show the sign-in page again, with what went wrong."""
    secret = browser.identify()
    shown = sign_in_page(
        secret=secret,
        back=back,
        form_targets=await find_form_targets(issuer, back),
        providers=browser.providers,
        problem=problem,
        status=status,
    )
    return browser.remember(shown, secret)
