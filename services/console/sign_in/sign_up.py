"""Register a user and sign them in at once."""

from collections.abc import Sequence

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.console.apis import auth as auth_api
from services.console.apis.auth import Tokens
from services.console.apis.calls import ApiProblem, ApiUnavailable, TokenRejected, load
from services.console.design.pages import see_other, show
from services.console.sessions.guards import MaybeSignedIn, SentForm
from services.console.sessions.returns import safe_return
from services.console.sessions.visitors import Cookies
from services.console.sign_in.router import open_session
from services.console.state import Apis, AppApis

router = new_router(tag="sign-in")

_MAX_NAME_CHARS = 100
_UNAVAILABLE = "Signing up is unavailable at the moment. Your entries are kept: try again soon."


@router.get("/sign-up")
@public
async def sign_up_page(
    request: Request, session: MaybeSignedIn, apis: AppApis, return_to: str = "/"
) -> Response:
    """Show the form, and the companies' providers, whose people need not register."""
    if session is not None:
        return see_other(safe_return(return_to))
    providers = await load(auth_api.list_providers(apis.auth))
    return _form(request, {"return_to": safe_return(return_to)}, providers=providers.value or ())


@router.post("/sign-up")
@public
async def sign_up(request: Request, form: SentForm, apis: AppApis) -> Response:
    """Register the visitor."""
    email, password = form.get("email", "").strip(), form.get("password", "")
    name = form.get("name", "").strip()
    errors = {} if email else {"email": "Enter your e-mail address."}
    if not password:
        errors["password"] = "Choose a password of at least 8 characters."  # noqa: S105
    if len(name) > _MAX_NAME_CHARS or not name.isprintable():
        errors["name"] = f"Use at most {_MAX_NAME_CHARS} characters, without line ends."
    if errors:
        return _form(request, form, errors=errors, status=422)
    try:
        if not await auth_api.register(apis.auth, email=email, password=password):
            return show(request, "sign_in/check_mail.html.j2", email=email)
        tokens = await auth_api.sign_in(apis.auth, email=email, password=password)
        await _set_name(apis, tokens, name)
        session = await open_session(apis, tokens)
    except ApiProblem as problem:
        return _refused(request, form, problem)
    except (ApiUnavailable, TokenRejected):
        return _form(request, form, problem=_UNAVAILABLE, status=503)
    cookies: Cookies = request.app.state.cookies
    response = see_other(safe_return(form.get("return_to", "/")))
    cookies.write_session(response, session)
    return response


async def _set_name(apis: Apis, tokens: Tokens, name: str) -> None:
    if name:
        await auth_api.rename_user(apis.auth, token=tokens.access_token, name=name)


def _refused(request: Request, form: SentForm, problem: ApiProblem) -> Response:
    """Show what auth says is wrong, beside the field that it is about."""
    errors = {name: text for name, text in problem.errors.items() if name in ("email", "password")}
    text = None if errors else problem.detail
    if problem.code == "email_taken":
        errors, text = (
            {"email": "This e-mail address is already registered. Sign in instead."},
            None,
        )
    return _form(request, form, errors=errors, problem=text, status=problem.status)


def _form(
    request: Request,
    fields: SentForm,
    *,
    errors: dict[str, str] | None = None,
    problem: str | None = None,
    status: int = 200,
    providers: Sequence[str] = (),
) -> Response:
    return show(
        request,
        "sign_in/sign_up.html.j2",
        status=status,
        fields=fields,
        errors=errors or {},
        problem=problem,
        providers=providers,
    )
