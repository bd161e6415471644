"""Render pages: templates with everything escaped, and headers that allow nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

from services.common.http.pages import page_headers
from services.console.design.assets import icon, style
from services.console.design.charts import bar_chart, diverging_bars
from services.console.sessions.visitors import Cookies, csrf_token, read_visitor

PACKAGES = ("design", "home", "sign_in")
"""The packages of the console that have a folder `templates`."""


@cache
def templates() -> Environment:
    """Return the environment of all templates; everything in them is escaped."""
    loader = PrefixLoader(
        {name: PackageLoader(f"services.console.{name}", "templates") for name in PACKAGES}
    )
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"bar_chart": bar_chart, "diverging_bars": diverging_bars}
    return environment


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence at the top of a page: `kind` is `info`, `success`, `warning` or `danger`."""

    kind: str
    text: str


def show(
    request: Request,
    template: str,
    *,
    status: int = 200,
    notices: Sequence[Notice] = (),
    **context: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        template: such as `design/design.html.j2`.
        notices: shown above the content.
        context: what the template needs, besides `visitor`, `path`, `csrf` and `notices`.
    """
    visitor = read_visitor(request)
    html = (
        templates()
        .get_template(template)
        .render(
            style_path=style().path,
            icon_path=icon().path,
            session=visitor.session,
            path=request.scope["path"],
            csrf=csrf_token(request),
            notices=notices,
            **context,
        )
    )
    response = HTMLResponse(html, status_code=status, headers=_headers(request))
    if visitor.is_new and visitor.session is None and 'name="csrf"' in html:
        cookies: Cookies = request.app.state.cookies
        cookies.write_browser(response, visitor.browser)
    return response


def show_problem(
    *, title: str, text: str, status: int, form_target: str, request_id: str | None = None
) -> HTMLResponse:
    """Return the page for an error, which depends on nothing else."""
    html = (
        templates()
        .get_template("design/problem.html.j2")
        .render(
            style_path=style().path,
            icon_path=icon().path,
            session=None,
            path="/-",
            csrf="",
            notices=(),
            title=title,
            text=text,
            request_id=request_id,
        )
    )
    return HTMLResponse(html, status_code=status, headers=_policy(form_target) | _PRIVATE)


def see_other(path: str) -> Response:
    """Return a redirect after which the browser sends a GET, as after a form."""
    return RedirectResponse(path, status_code=303, headers={"Cache-Control": "no-store"})


_PRIVATE = {"Cache-Control": "no-store"}


def _headers(request: Request) -> dict[str, str]:
    return _policy(request.app.state.settings.auth_url) | _PRIVATE


@cache
def _policy(auth_url: str) -> dict[str, str]:
    """Return the headers that let a page load only our own files, and be framed by nobody.

    A form may lead to auth, because signing in and switching accounts redirect there.
    """
    parts = urlsplit(auth_url)
    return page_headers(
        {
            "default-src": "'self'",
            "form-action": f"'self' {parts.scheme}://{parts.netloc}",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
    )
