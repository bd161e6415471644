"""The HTML of auth's pages: accessible, without scripts or other hosts."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse

from services.auth.pages.style import STYLE, STYLE_SOURCE
from services.common.http.breaking import split_name

PAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    303: {"description": "Continue at the address in `Location`."},
    400: {"description": "A page that says what is wrong.", "content": {"text/html": {}}},
}
"""What a page answers besides itself, for OpenAPI."""

_BRAND = (
    '<header class="brand"><svg viewBox="0 0 32 32" aria-hidden="true">'
    '<rect width="32" height="32" rx="8" fill="#4338ca"/><path d="M8 23V12a1 1 0 0 1 1-1h2v12M11 '
    '15h14v4H11" fill="none" stroke="#fff" stroke-width="2.4" stroke-linejoin="round" '
    'stroke-linecap="round"/></svg>Tollgate</header>'
)


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
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(text)}</p>"]
    if problem is not None:
        parts.append(f'<p role="alert">{escape(problem)}</p>')
    if form is not None:
        parts.append(_render(form))
    parts.append(content)
    body = "\n".join(parts)
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – Tollgate</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{_BRAND}\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return HTMLResponse(document, status_code=status, headers=_headers(form_targets))


def breakable(name: str) -> str:
    """Return an e-mail address or host as HTML that moves to the next line as a whole, and breaks
    between its parts if it is longer than a line; it may include the full stop after it."""
    return f'<span class="name">{"<wbr>".join(map(escape, split_name(name)))}</span>'


def button_link(text: str, url: str, *, secondary: bool = False) -> str:
    """Return the HTML of a link that looks like a button."""
    look = " secondary" if secondary else ""
    return f'<a class="button{look}" href="{escape(url)}">{escape(text)}</a>'


def _render(form: Form) -> str:
    fields = [f'<input type="hidden" name="token" value="{escape(form.token)}">']
    if form.email is not None:
        fields.append(
            '<div class="field"><label for="email">E-mail address</label>\n<input id="email" '
            f'type="email" autocomplete="username" readonly value="{escape(form.email)}"></div>'
        )
    if form.password:
        fields.append(
            '<div class="field"><label for="password">New password</label>\n'
            '<input id="password" name="password" type="password" required minlength="8" '
            'maxlength="1024" autocomplete="new-password" aria-describedby="password-hint">\n'
            '<span class="hint" id="password-hint">At least 8 characters.</span></div>'
        )
    fields.append(f'<button class="button" type="submit">{escape(form.button)}</button>')
    inside = "\n".join(fields)
    return f'<form method="post" action="{escape(form.action)}">\n{inside}\n</form>'
