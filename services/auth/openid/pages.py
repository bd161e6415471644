"""The pages on which people sign in, ask for a new password, consent and sign out, without
scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from urllib.parse import quote, urlencode, urlsplit

from fastapi.responses import HTMLResponse

from services.auth.openid.returns import Return
from services.auth.openid.service import Recipient
from services.auth.pages.html import breakable, button_link, page
from services.auth.sessions.cookies import csrf_token
from services.common.identity.guards import IDENTITY_SCOPES, SCOPES


@dataclass(frozen=True, slots=True)
class Field:
    """A labelled input; `attributes` are HTML."""

    name: str
    label: str
    type: str
    attributes: str
    value: str = ""
    problem: str | None = None
    """What is wrong with the value; shown beside it."""


_EMAIL = Field(
    "email", "E-mail address", "email", 'required maxlength="1000" autocomplete="username"'
)
_PASSWORD = Field(
    "password", "Password", "password", 'required maxlength="1024" autocomplete="current-password"'
)
_CODE = Field(
    "totp",
    "Code from your authenticator app, or a recovery code",
    "text",
    'required maxlength="40" autocomplete="one-time-code" autocapitalize="none"',
)


def form(
    action: str,
    *,
    secret: str,
    hidden: Mapping[str, str],
    buttons: Sequence[tuple[str, str]],
    fields: Sequence[Field] = (),
) -> str:
    """Return the HTML of a form with a CSRF token.

    Args:
        secret: that of the browser's cookie.
        buttons: each the value of the field `decision` and the text.
    """
    hidden = {"csrf": csrf_token(secret), **hidden}
    lines = [f'<form method="post" action="{escape(action)}">']
    lines += [
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in hidden.items()
    ]
    lines += map(_render, fields)
    for number, (value, text) in enumerate(buttons):
        look = " secondary" if number else ""
        lines.append(
            f'<button class="button{look}" type="submit" name="decision" value="{escape(value)}">'
            f"{escape(text)}</button>"
        )
    return "\n".join([*lines, "</form>"])


def _render(field: Field) -> str:
    attributes, beside = field.attributes, ""
    if field.problem is not None:
        error = f"{field.name}-error"
        attributes += f' aria-invalid="true" aria-describedby="{error}" autofocus'
        beside = f'\n<p class="wrong" id="{error}">{escape(field.problem)}</p>'
    return (
        f'<div class="field"><label for="{field.name}">{escape(field.label)}</label>\n<input '
        f'id="{field.name}" name="{field.name}" type="{field.type}" value="{escape(field.value)}" '
        f"{attributes}>{beside}</div>"
    )


def sign_in_page(
    *,
    secret: str,
    back: Return,
    form_targets: Sequence[str],
    providers: Sequence[str],
    email: str = "",
    link: str = "",
    text: str = "Sign in with your e-mail address and password.",
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return the page that asks for e-mail address and password.

    Args:
        secret: that of the browser's cookie.
        back: where to go on afterwards.
        providers: those that the person may sign in with instead.
        link: a sealed `Link` to send along.
    """
    content = form(
        "/sign-in",
        secret=secret,
        hidden=_hidden(back, link),
        fields=[replace(_EMAIL, value=email), _PASSWORD],
        buttons=[("sign-in", "Sign in")],
    )
    content += '\n<p class="aside"><a href="/password-reset">Forgot your password?</a></p>'
    for name in providers:
        target = f"/sign-in/with/{quote(name, safe='')}?{urlencode({'continue': back.url})}"
        content += "\n" + button_link(f"Sign in with {name}", target, secondary=True)
    return page(
        "Sign in",
        text,
        problem=problem,
        content=content,
        form_targets=form_targets,
        status=status,
    )


def code_page(
    *,
    secret: str,
    back: Return,
    form_targets: Sequence[str],
    link: str = "",
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return the page that asks for the code of the second factor."""
    content = form(
        "/sign-in/code",
        secret=secret,
        hidden=_hidden(back, link),
        fields=[_CODE],
        buttons=[("sign-in", "Sign in")],
    )
    return page(
        "Enter your code",
        "Your sign-in is protected by a second factor.",
        problem=problem,
        content=content,
        form_targets=form_targets,
        status=status,
    )


def reset_request_page(
    *,
    secret: str,
    email: str = "",
    wrong: str | None = None,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return the page that asks where to send a link that resets the password.

    Args:
        secret: that of the browser's cookie.
        wrong: what is wrong with the address.
    """
    content = form(
        "/password-reset/request/page",
        secret=secret,
        hidden={},
        fields=[replace(_EMAIL, value=email, problem=wrong)],
        buttons=[("send", "Send the link")],
    )
    return page(
        "Reset your password",
        "We send you a link to set a new one.",
        problem=problem,
        content=content,
        status=status,
    )


def _hidden(back: Return, link: str) -> dict[str, str]:
    return {"continue": back.url} | ({"link": link} if link else {})


def scope_list(scope: str) -> str:
    """Return the HTML of a list that explains scopes."""
    descriptions = {**IDENTITY_SCOPES, **SCOPES}
    items = "\n".join(
        f"<li>{escape(descriptions[name].rstrip('.'))} (<code>{escape(name)}</code>)</li>"
        for name in scope.split()
    )
    return f"<ul>\n{items}\n</ul>"


def consent_page(
    *,
    secret: str,
    back: Return,
    recipient: Recipient,
    scope: str,
    email: str,
    organisation: str | None,
) -> HTMLResponse:
    """Return the page that asks a person to allow an app what it asks for.

    Args:
        organisation: the name of the organisation that the app would act for, if it is one.
    """
    another = escape(back.with_another_user().url)
    acting = ""
    if organisation is not None:
        acting = f"<p>It would act for the organisation “{escape(organisation)}”.</p>\n"
    content = (
        f"{scope_list(scope)}\n"
        f"{acting}"
        f"<p>You then go on to {breakable(urlsplit(recipient.redirect_uri).netloc + '.')} "
        "Allow it only if you trust this app.</p>\n"
        + form(
            "/consent",
            secret=secret,
            hidden={"continue": back.url},
            buttons=[("allow", "Allow"), ("deny", "Deny")],
        )
        + f"\n<p>You are signed in as {breakable(email + '.')} "
        f'<a href="{another}">Use another user</a></p>'
    )
    return page(
        f"Allow {recipient.client.name}?",
        f"The app “{recipient.client.name}” would like to:",
        content=content,
        form_targets=[recipient.source],
    )


def sign_out_page(*, secret: str) -> HTMLResponse:
    """Return the page that asks whether to sign out."""
    content = form("/logout/confirm", secret=secret, hidden={}, buttons=[("yes", "Sign out")])
    return page("Sign out", "Do you want to sign out of Tollgate?", content=content)


def signed_out_page() -> HTMLResponse:
    """Return the page after signing out."""
    return page("Signed out", "You are signed out. You can close this page.")


def stale_form_page(back: Return | None) -> HTMLResponse:
    """Return the page for a form that was not shown to this browser, or too long ago."""
    link = button_link("Start again", back.url) if back else ""
    text = "This form has expired, or your browser sends no cookies."
    return page("Please start again", text, content=link, status=403)
