"""Choose the media type of a response by the request's `Accept` (RFC 9110 §12.5.1)."""

from collections.abc import Sequence
from typing import NamedTuple


class _Range(NamedTuple):
    main: str
    sub: str
    quality: float


def choose_media_type(accept: str, offered: Sequence[str]) -> str:
    """Return the offered type that the client prefers, or the first if it accepts none.

    Of equally preferred types, the first offered wins. Parameters other than `q` are ignored.
    """
    ranges = [found for part in accept.split(",") if (found := _parse(part)) is not None]
    return max(offered, key=lambda offer: _quality(offer, ranges))


def _parse(part: str) -> _Range | None:
    """Return a media range; None if it is malformed."""
    media, *parameters = (each.strip().lower() for each in part.split(";"))
    main, separator, sub = media.partition("/")
    if not (main and separator and sub) or (main == "*" and sub != "*"):
        return None
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return _Range(main, sub, quality) if 0 <= quality <= 1 else None


def _quality(offer: str, ranges: list[_Range]) -> float:
    """Return the quality of the most specific range that matches; 0 if none does."""
    main, _, sub = offer.partition("/")
    for wanted in ((main, sub), (main, "*"), ("*", "*")):
        matching = [each.quality for each in ranges if (each.main, each.sub) == wanted]
        if matching:
            return max(matching)
    return 0.0
