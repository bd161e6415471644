"""Where long names may break at the end of a line."""

import re

from markupsafe import Markup

_PLACE = re.compile(r"(?<=\w)(?=@)|(?<=[._/-])(?=\w)")


def breakable(name: str) -> Markup:
    """Return an e-mail address, path or identifier as HTML that breaks between its parts.

    In a narrow column, browsers would otherwise break it within a word.
    """
    return Markup("<wbr>").join(_PLACE.split(name))
