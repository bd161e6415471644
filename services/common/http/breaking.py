"""Where long names may break at the end of a line of a page."""

import re

_PLACE = re.compile(r"(?<=\w)(?=@)|(?<=[._/-])(?=\w)")


def split_name(name: str) -> list[str]:
    """Return the parts of an e-mail address, host, path or identifier, for `<wbr>` in between.

    In a narrow column, browsers would otherwise break it within a word.
    """
    return _PLACE.split(name)
