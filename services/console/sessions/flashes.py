"""What a page shows once, after the redirect that follows a form."""

from dataclasses import asdict, dataclass

from fastapi import Request, Response

from services.console.sessions.visitors import Cookies, is_refresh, read_visitor

_SECONDS = 60
_NAME = "tollgate-flash"


@dataclass(frozen=True, slots=True)
class Flash:
    """A sentence, and perhaps a secret that is never shown again.

    `kind` is `info`, `success`, `warning` or `danger`.
    """

    kind: str
    text: str
    secret: str | None = None


def write_flash(request: Request, response: Response, flash: Flash) -> Response:
    """Return the response, after which the next page shows a sentence to this visitor."""
    cookies: Cookies = request.app.state.cookies
    document = asdict(flash) | {"of": read_visitor(request).csrf_text}
    sealed = cookies.sealer.seal(document, purpose="flash")
    cookies.write(response, _NAME, sealed, max_age=_SECONDS)
    return response


def read_flash(request: Request) -> Flash | None:
    """Return what to show once, if the visitor has just sent a form."""
    if is_refresh(request):
        return None
    cookies: Cookies = request.app.state.cookies
    sealed = cookies.read(request, _NAME)
    document = (
        cookies.sealer.unseal(sealed, purpose="flash", max_age_s=_SECONDS) if sealed else None
    )
    if not document or document.pop("of") != read_visitor(request).csrf_text:
        return None
    return Flash(**document)


def delete_flash(request: Request, response: Response) -> None:
    """Delete what was shown."""
    cookies: Cookies = request.app.state.cookies
    if cookies.read(request, _NAME) and not is_refresh(request):
        cookies.write(response, _NAME, "", max_age=0)
