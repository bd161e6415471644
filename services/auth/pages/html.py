"""The HTML of auth's pages: plain, accessible, without scripts, styles or other hosts."""

import html
from dataclasses import dataclass

from fastapi.responses import HTMLResponse

# `http.server` adds those of every response, such as Referrer-Policy: the address contains a token.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


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
    status: int = 200,
) -> HTMLResponse:
    """Return a page with a sentence and perhaps a form; all arguments are escaped."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(text)}</p>"]
    if problem is not None:
        parts.append(f'<p role="alert">{html.escape(problem)}</p>')
    if form is not None:
        parts.append(_render(form))
    body = "\n".join(parts)
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)} – Tollgate</title>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return HTMLResponse(document, status_code=status, headers=HEADERS)


def _render(form: Form) -> str:
    fields = [f'<input type="hidden" name="token" value="{html.escape(form.token)}">']
    if form.email is not None:
        fields.append(
            '<p><label for="email">E-mail</label><br>\n<input id="email" type="email" '
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
