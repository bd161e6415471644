"""The HTML of auth's pages: accessible, without scripts or other hosts."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse

from services.auth.pages.style import STYLE, STYLE_SOURCE

PAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    303: {"description": "Continue at the address in `Location`."},
    400: {"description": "A page that says what is wrong.", "content": {"text/html": {}}},
}
"""What a page answers besides itself, for OpenAPI."""


def _headers(form_targets: Sequence[str]) -> dict[str, str]:
    """Return a page's headers, besides those of every response that `http.server` adds, such as
    Referrer-Policy: the address may contain a token.

    Args:
        form_targets: sources that its form may lead to, besides auth; redirects count, too.
    """
    targets = " ".join(["'self'", *form_targets])
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {STYLE_SOURCE}; form-action {targets}; "
            "base-uri 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "no-store",
    }


def see_other(url: str) -> RedirectResponse:
    """Return a redirect after which the browser sends a GET, as after a form."""
    return RedirectResponse(url, status_code=303, headers={"Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True)
class Form:
    """A form that posts a link's token to `action`, with a new password if it asks for one."""

    action: str
    token: str
    button: str
    password: bool = False
    email: str | None = None
    """Helps password managers to store the password for the right user."""


def page(
    title: str,
    text: str,
    *,
    form: Form | None = None,
    problem: str | None = None,
    content: str = "",
    form_targets: Sequence[str] = (),
    status: int = 200,
) -> HTMLResponse:
    """Return a page with a sentence and perhaps a form; all arguments but `content` are escaped.

    Args:
        content: more HTML.
        form_targets: other sources that the page's forms may lead to.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(text)}</p>"]
    if problem is not None:
        parts.append(f'<p role="alert">{html.escape(problem)}</p>')
    if form is not None:
        parts.append(_render(form))
    parts.append(content)
    body = "\n".join(parts)
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)} – Tollgate</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return HTMLResponse(document, status_code=status, headers=_headers(form_targets))


def _render(form: Form) -> str:
    fields = [f'<input type="hidden" name="token" value="{html.escape(form.token)}">']
    if form.email is not None:
        fields.append(
            '<p><label for="email">E-mail address</label><br>\n<input id="email" type="email" '
            f'autocomplete="username" readonly value="{html.escape(form.email)}"></p>'
        )
    if form.password:
        fields.append(
            '<p><label for="password">New password (8 to 1024 characters)</label><br>\n'
            '<input id="password" name="password" type="password" required minlength="8" '
            'maxlength="1024" autocomplete="new-password"></p>'
        )
    fields.append(f'<p><button type="submit">{html.escape(form.button)}</button></p>')
    inside = "\n".join(fields)
    return f'<form method="post" action="{html.escape(form.action)}">\n{inside}\n</form>'
