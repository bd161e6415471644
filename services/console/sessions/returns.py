"""Where a visitor goes on after signing in: only ever to one of the console's own pages."""

import re
from urllib.parse import urlsplit

_OWN = re.compile(r"/(?![/\\])[\x21-\x7e]*")
_MAX_CHARS = 1000


def safe_return(text: str) -> str:
    """Return a path of the console with its query; `/` for anything else.

    What browsers read as another host (`//host`, `/\\host`) or remove (tabs, line ends) is refused.
    """
    if len(text) > _MAX_CHARS or not _OWN.fullmatch(text) or "\\" in text:
        return "/"
    parts = urlsplit(text)
    is_own = not parts.scheme and not parts.netloc
    is_page = not parts.path.startswith(("/sign-in", "/sign-out", "/assets/"))
    return text if is_own and is_page else "/"


def page_of(path: str) -> str:
    """Return the page to show again after a form that was sent to a path has failed."""
    if path == "/account":  # what switches accounts is no page itself
        return "/organisation"
    parts = path.split("/")
    return "/".join(parts[:3] if parts[1] in ("models", "admin", "invoices") else parts[:2])
