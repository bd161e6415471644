"""Render pages: templates with everything escaped, and headers that allow nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from babel import Locale
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

from services.common.http.pages import page_headers
from services.console.design.assets import icon, script, style
from services.console.design.breaking import breakable
from services.console.design.charts import bar_chart, diverging_bars, sparkline_path
from services.console.design.locales import choose_locale, filters
from services.console.sessions.flashes import Flash, delete_flash, read_flash
from services.console.sessions.visitors import Cookies, csrf_token, new_secret, read_visitor

PACKAGES = ("admin", "billing", "design", "keys", "models", "organisation", "sign_in", "usage")
"""The packages of the console that have a folder `templates`."""
_PRIVATE = {"Cache-Control": "no-store"}
_UNBUFFERED = {"X-Accel-Buffering": "no"}
"""Lets nginx pass each piece of a page on at once."""
_AT_ONCE_S = 0.1
"""How long the rest of a page waits for its late part."""


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
    environment.globals |= {
        "bar_chart": bar_chart,
        "diverging_bars": diverging_bars,
        "sparkline_path": sparkline_path,
    }
    environment.filters |= filters() | {"breakable": breakable}
    return environment


def show(
    request: Request,
    template: str,
    *,
    status: int = 200,
    notices: Sequence[Flash] = (),
    **context: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        template: such as `design/design.html.j2`.
        notices: shown above the content.
        context: what the template needs, besides `session`, `path`, `csrf`, `docs`, `locale`,
            `notices`, and `once`, a new id for a form.
    """
    html = _render(template, **_values(request, notices), **context)
    response = HTMLResponse(html, status_code=status, headers=_headers(request))
    _write_cookies(request, response, html)
    return response


async def show_with_late_part(
    request: Request,
    template: str,
    *,
    late_template: str,
    late: Awaitable[Mapping[str, Any]],
    **context: Any,
) -> Response:
    """Return a page whose last part may take long; the rest does not wait for it.

    It is one response, which is sent in two pieces if the part is not there at once. So it needs no
    script, and no process has to remember a result.

    Args:
        template: a page with `{{ late }}`, which comes right after a `ui.waiting` that it replaces.
        late_template: of the part.
        late: returns what `late_template` needs.
        context: what both templates need, as for `show`.
    """
    values = _values(request, ()) | context
    waiting = asyncio.ensure_future(late)

    async def render_late() -> str:
        return _render(late_template, **values, **await waiting)

    try:
        await asyncio.wait([waiting], timeout=_AT_ONCE_S)
        is_late = not waiting.done()
        mark = f"<!--{new_secret()}-->" if is_late else await render_late()
        html = _render(template, **values, late=Markup(mark))  # noqa: S704 escaped above
    except BaseException:
        waiting.cancel()
        raise
    if not is_late:
        response: Response = HTMLResponse(html, headers=_headers(request))
    else:
        first, last = html.split(mark)

        async def pieces() -> AsyncIterator[str]:
            try:
                yield first
                yield await render_late() + last
            finally:
                waiting.cancel()

        response = StreamingResponse(
            pieces(), media_type="text/html", headers=_headers(request) | _UNBUFFERED
        )
    _write_cookies(request, response, html)
    return response


def show_problem(
    *, title: str, text: str, status: int, form_target: str, request_id: str | None = None
) -> HTMLResponse:
    """Return the page for an error, which depends on nothing else."""
    html = _render(
        "design/problem.html.j2",
        session=None,
        path="/-",
        csrf="",
        docs=False,
        locale=choose_locale(""),
        once="",
        notices=(),
        title=title,
        text=text,
        request_id=request_id,
    )
    return HTMLResponse(html, status_code=status, headers=_policy(form_target) | _PRIVATE)


def locale_of(request: Request) -> Locale:
    """Return the visitor's locale."""
    return choose_locale(request.headers.get("accept-language", ""))


def see_other(path: str) -> Response:
    """Return a redirect after which the browser sends a GET, as after a form."""
    return RedirectResponse(path, status_code=303, headers=_PRIVATE)


def _values(request: Request, notices: Sequence[Flash]) -> dict[str, Any]:
    """Return what every page needs."""
    flash = read_flash(request)
    return {
        "session": read_visitor(request).session,
        "path": request.scope["path"],
        "csrf": csrf_token(request),
        "docs": request.app.state.settings.docs_folder is not None,
        "locale": locale_of(request),
        "once": new_secret(),
        "notices": [*notices, flash] if flash else notices,
    }


def _write_cookies(request: Request, response: Response, html: str) -> None:
    visitor = read_visitor(request)
    delete_flash(request, response)
    if visitor.is_new and visitor.session is None and 'name="csrf"' in html:
        cookies: Cookies = request.app.state.cookies
        cookies.write_browser(response, visitor.browser)


def _render(template: str, **context: Any) -> str:
    files = {
        "style_path": style().path,
        "script_path": script().path,
        "icon_path": icon().path,
    }
    return templates().get_template(template).render(**files, **context)


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
