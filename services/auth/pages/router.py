"""The pages that links in e-mails lead to, and the one that asks for a link to reset a password.

They work without scripts. Opening a page uses up nothing, because mail scanners open links, too;
sending its form does. The link's token authorises the form, so another site cannot forge one, and
no cookie is needed. The form that asks for a link has no such token, but a CSRF token: otherwise
other sites could let their visitors cause e-mails.
"""

import math

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from services.auth.audit.requests import Address, Failures
from services.auth.links.service import INVITE, JOIN, LinkInvalid, find_link
from services.auth.openid.browsers import AppBrowser, read_sent_form
from services.auth.openid.pages import reset_request_page
from services.auth.openid.returns import Return
from services.auth.organisations import invitations
from services.auth.pages.forms import read_fields
from services.auth.pages.html import Form, button_link, page
from services.auth.passwords import PasswordHasher
from services.auth.state import AppHasher
from services.auth.tokens.guesses import TooManyGuesses
from services.auth.users import mailed
from services.auth.users.emails import check_email
from services.auth.users.service import EmailTaken, find_user_by_email, prepare_user
from services.common.db.database import AppDatabase, Database
from services.common.errors import BodyInvalid, ServiceError
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="pages")

_RESET = "/password-reset"


@router.get(_RESET, include_in_schema=False)
@public
async def reset_page(browser: AppBrowser, token: str = "") -> Response:
    """Show the form that sets a new password; without a token, the one that asks for a link."""
    if token:
        return _reset_page(token)
    secret = browser.identify()
    return browser.remember(reset_request_page(secret=secret), secret)


@router.post("/password-reset/request/page", include_in_schema=False)
@public
async def request_reset_by_page(
    request: Request, database: AppDatabase, browser: AppBrowser, address: Address
) -> Response:
    """Mail a link that resets the password. The page is the same whether or not the address has a
    user."""
    sent = await read_sent_form(request, browser, start=Return(_RESET, ""))
    email = sent.fields.get("email", "")
    try:
        check_email(email)
        async with database.transaction() as session:
            await mailed.request_reset(session, email=email, address=address)
    except BodyInvalid as error:
        return reset_request_page(
            secret=sent.secret, email=email, wrong=_problem_in(error), status=error.status
        )
    except ServiceError as error:
        shown = reset_request_page(
            secret=sent.secret, email=email, problem=_explain(error), status=error.status
        )
        shown.headers.update(error.headers)
        return shown
    text = "If someone is registered with that address, a link is on its way."
    return page("Check your mail", f"{text} It works for an hour.")


@router.post("/password-reset/page", include_in_schema=False)
@public
async def reset_by_page(
    request: Request, database: AppDatabase, hasher: AppHasher, address: Address, failures: Failures
) -> HTMLResponse:
    """Set a new password."""
    fields = await read_fields(request)
    token = fields.get("token", "")
    try:
        await mailed.reset_password(
            database,
            hasher=hasher,
            token=token,
            password=fields.get("password", ""),
            address=address,
        )
    except BodyInvalid as error:
        return _reset_page(token, problem=_problem_in(error))
    except ServiceError as error:
        again = button_link("Request a new link", _RESET)
        return _failed("Reset your password", error, failures, address, again=again)
    text = "Your new password is set. You were signed out everywhere."
    return _done(request, "Password changed", text)


@router.get("/verify-email", include_in_schema=False)
@public
async def verification_page(token: str = "") -> HTMLResponse:
    """Show the button that confirms an e-mail address."""
    form = Form("/verify-email/page", token, "Confirm")
    return page("Confirm your e-mail address", "Is this e-mail address yours?", form=form)


@router.post("/verify-email/page", include_in_schema=False)
@public
async def verify_by_page(
    request: Request, database: AppDatabase, address: Address, failures: Failures
) -> HTMLResponse:
    """Confirm an e-mail address, or complete a registration."""
    fields = await read_fields(request)
    try:
        async with database.transaction() as session:
            await mailed.verify_email(session, token=fields.get("token", ""), address=address)
    except ServiceError as error:
        return _failed("Confirm your e-mail address", error, failures, address)
    return _done(request, "E-mail address confirmed", "Thank you. You can sign in now.")


@router.get("/register", include_in_schema=False)
@public
async def invitation_page(
    database: AppDatabase, address: Address, failures: Failures, token: str = ""
) -> HTMLResponse:
    """Show the form that accepts an invitation."""
    try:
        return await _invitation_page(database, token)
    except ServiceError as error:
        return _failed("Register", error, failures, address)


@router.post("/register/page", include_in_schema=False)
@public
async def register_by_page(
    request: Request, database: AppDatabase, hasher: AppHasher, address: Address, failures: Failures
) -> HTMLResponse:
    """Register with the e-mail address that was invited."""
    fields = await read_fields(request)
    token, password = fields.get("token", ""), fields.get("password", "")
    try:
        async with database.snapshot() as session:
            email = (await find_link(session, token=token, purposes=(INVITE,))).email
        problem = await _register(
            request, database, hasher, email=email, password=password, token=token, address=address
        )
        if problem is not None:
            return await _invitation_page(database, token, problem=problem)
    except ServiceError as error:
        return _failed("Register", error, failures, address)
    return _done(request, "Registered", "Thank you. You can sign in now.")


@router.get("/invitations/accept", include_in_schema=False)
@public
async def joining_page(
    request: Request, database: AppDatabase, address: Address, failures: Failures, token: str = ""
) -> HTMLResponse:
    """Show the form that joins an organisation."""
    try:
        return await _joining_page(database, token, mode=_mode(request))
    except ServiceError as error:
        return _failed("Join an organisation", error, failures, address)


@router.post("/invitations/accept/page", include_in_schema=False)
@public
async def join_by_page(
    request: Request, database: AppDatabase, hasher: AppHasher, address: Address, failures: Failures
) -> HTMLResponse:
    """Join an organisation as the user who was invited; anyone without a user registers first.

    The link alone is enough for a user who has confirmed the address: only a sign-in makes use of
    the membership.
    """
    fields = await read_fields(request)
    token = fields.get("token", "")
    try:
        async with database.transaction() as session:
            email = (await find_link(session, token=token, purposes=(JOIN,))).email
            user = await find_user_by_email(session, email=email)
            if user is not None:
                await invitations.accept(
                    session, user=user, token=token, signed_in=False, address=address
                )
        if user is None:
            password = fields.get("password", "")
            problem = await _register(
                request,
                database,
                hasher,
                email=email,
                password=password,
                token=token,
                address=address,
            )
            if problem is not None:
                return await _joining_page(database, token, mode=_mode(request), problem=problem)
    except ServiceError as error:
        return _failed("Join an organisation", error, failures, address)
    return _done(request, "Joined", "You are a member now. You can sign in.")


async def _register(
    request: Request,
    database: Database,
    hasher: PasswordHasher,
    *,
    email: str,
    password: str,
    token: str,
    address: str,
) -> str | None:
    """Register the owner of an invited address; return what is wrong with the password, or None.

    Raises:
        LinkInvalid: the token is no longer valid.
        AdministratorInvitesFirst: an organisation's invitation does not permit to register.
        EmailTaken: the address has a user by now.
    """
    try:
        prepared = await prepare_user(hasher=hasher, email=email, password=password)
    except BodyInvalid as error:
        return _problem_in(error)
    async with database.transaction() as session:
        await mailed.accept_invitation(
            session,
            prepared=prepared,
            email=email,
            token=token,
            mode=_mode(request),
            address=address,
        )
    return None


def _done(request: Request, title: str, text: str) -> HTMLResponse:
    """Return the last page, which leads to the console if its address is known."""
    console: str | None = request.app.state.console_url
    link = button_link("Sign in", f"{console}/sign-in") if console else ""
    return page(title, text, content=link)


def _mode(request: Request) -> str:
    mode: str = request.app.state.registration
    return mode


def _problem_in(error: BodyInvalid) -> str:
    problem: str = error.extra["errors"][0]["msg"]
    return problem


def _explain(error: ServiceError) -> str:
    """Return what the page that asks for a link says about an error."""
    if not isinstance(error, TooManyGuesses):
        return error.detail
    minutes = math.ceil(int(error.headers["Retry-After"]) / 60)
    when = "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"Too many links were requested. Look for one in your mail, or try again in {when}."


def _reset_page(token: str, *, problem: str | None = None) -> HTMLResponse:
    form = Form("/password-reset/page", token, "Set password", password=True)
    return page(
        "Reset your password",
        "Choose a new password.",
        form=form,
        problem=problem,
        status=200 if problem is None else 422,
    )


async def _invitation_page(
    database: Database, token: str, *, problem: str | None = None
) -> HTMLResponse:
    async with database.snapshot() as session:
        link = await find_link(session, token=token, purposes=(INVITE,))
    form = Form("/register/page", token, "Register", password=True, email=link.email)
    return page(
        "Register",
        "Choose a password.",
        form=form,
        problem=problem,
        status=200 if problem is None else 422,
    )


async def _joining_page(
    database: Database, token: str, *, mode: str, problem: str | None = None
) -> HTMLResponse:
    async with database.snapshot() as session:
        link = await find_link(session, token=token, purposes=(JOIN,))
        organisation = await invitations.find_invited(
            session, organisation_id=link.organisation_id, email=link.email
        )
        user = await find_user_by_email(session, email=link.email)
    if organisation is None:
        raise LinkInvalid()
    is_new = user is None
    if is_new and mode == "invite":
        raise mailed.AdministratorInvitesFirst()
    form = Form(
        "/invitations/accept/page",
        token,
        "Register and join" if is_new else "Join",
        password=is_new,
        email=link.email,
    )
    choose = " Choose a password." if is_new else ""
    return page(
        "Join an organisation",
        f"You are invited to join “{organisation.name}”.{choose}",
        form=form,
        problem=problem,
        status=200 if problem is None else 422,
    )


def _failed(
    title: str, error: ServiceError, failures: Failures, address: str, *, again: str = ""
) -> HTMLResponse:
    """Return the page for an error; a link that is invalid is noted.

    Args:
        again: HTML that leads to a new link, for a link that is invalid.
    """
    content = ""
    if isinstance(error, LinkInvalid):
        title, content = "This link does not work", again
        failures.note("link_rejected", address=address)
    text = "You are already registered." if isinstance(error, EmailTaken) else error.detail
    return page(title, text, content=content, status=error.status)
