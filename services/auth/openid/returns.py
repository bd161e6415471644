"""Where a browser goes on after signing in: only ever back to one of auth's own pages."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

AUTHORIZE = "/authorize"
DEVICE = "/device"

_PATHS = frozenset({AUTHORIZE, DEVICE})
_MAX_PARAMETERS = 40


@dataclass(frozen=True, slots=True)
class Return:
    """A page to go back to."""

    path: str
    query: str

    @property
    def url(self) -> str:
        """The address, without scheme and host."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def after_sign_in(self) -> "Return":
        """Return the same page, without what demands that the person sign in once more."""
        changed = []
        for name, value in parse_qsl(self.query, max_num_fields=_MAX_PARAMETERS):
            if name == "prompt":
                kept = [each for each in value.split() if each not in ("login", "select_account")]
                value = " ".join(kept)
            if name not in ("max_age", "id_token_hint"):
                changed.append((name, value))
        return Return(self.path, urlencode(changed))

    def with_another_user(self) -> "Return":
        """Return the same page, which then asks for another person."""
        pairs = parse_qsl(self.query, max_num_fields=_MAX_PARAMETERS)
        kept = [(name, value) for name, value in pairs if name != "prompt"]
        return Return(self.path, urlencode([*kept, ("prompt", "login")]))


def read_return(text: str) -> Return | None:
    """Return the page that a form names; None if it is not one of auth's pages."""
    path, _, query = text.partition("?")
    try:
        pairs = parse_qsl(query, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    return Return(path, urlencode(pairs)) if path in _PATHS else None
