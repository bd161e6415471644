"""What pages refer to, under names that change with it: a style sheet, a script and an icon."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_STYLE = ("tokens.css", "base.css", "layout.css", "components.css", "data.css")
"""The parts of the style sheet, in order."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that never changes under its name."""

    name: str
    media_type: str
    content: bytes

    @property
    def path(self) -> str:
        """The path under which it is served."""
        return f"/assets/{self.name}"


@cache
def style() -> Asset:
    """Return the style sheet."""
    content = b"\n".join((_FOLDER / part).read_bytes() for part in _STYLE)
    return _named("style", "css", "text/css; charset=utf-8", content)


@cache
def script() -> Asset:
    """Return the script, without which every page works, too."""
    content = (_FOLDER / "console.js").read_bytes()
    return _named("script", "js", "text/javascript; charset=utf-8", content)


@cache
def icon() -> Asset:
    """Return the icon of browser tabs."""
    return _named("icon", "svg", "image/svg+xml", (_FOLDER / "icon.svg").read_bytes())


@cache
def assets() -> dict[str, Asset]:
    """Return all files by name."""
    return {each.name: each for each in (style(), script(), icon())}


def _named(stem: str, suffix: str, media_type: str, content: bytes) -> Asset:
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(f"{stem}.{digest}.{suffix}", media_type, content)
