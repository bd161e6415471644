"""The look of auth's pages, which people open from the console."""

import re

from harness.programs import ROOT
from services.auth.pages.html import breakable
from services.auth.pages.style import STYLE

_DARK = "(prefers-color-scheme"


def test_the_colours_are_those_of_the_console() -> None:
    tokens = (ROOT / "services/console/design/tokens.css").read_text()

    for own, console in zip(STYLE.split(_DARK), tokens.split(_DARK), strict=True):
        assert _colours(own).items() <= _colours(console).items()


def test_a_name_breaks_between_its_parts_and_no_markup_gets_through() -> None:
    assert ">ada<wbr>@example.<wbr>com<" in breakable("ada@example.com")
    assert ">&lt;b&gt;.<wbr>x&#x27;<" in breakable("<b>.x'")


def _colours(style: str) -> dict[str, str]:
    """Return the values of a style's custom properties, by name."""
    return dict(re.findall(r"--([\w-]+):\s*([^;}]+)", style))
