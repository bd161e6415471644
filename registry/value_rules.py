"""Read feature values the same way in training and in requests.

A version's signature contains the rules it was trained with, so that serving applies the same ones.
"""

import math
from functools import cached_property

from pydantic import BaseModel, ConfigDict

# All Unicode white space, plus invisible characters: zero-width spaces and byte-order marks.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
# pandas' list without "None", which is a category in many data sets.
MISSING = (
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "n/a",
    "nan",
    "null",
)


class ValueRules(BaseModel):
    """Which texts mean "missing", and whether surrounding white space is removed.

    Args:
        trim: whether to strip white space from both ends of a text first.
        missing: texts that mean "missing", besides the empty one; case-sensitive. A number, such
            as -999, also applies to number columns.
    """

    model_config = ConfigDict(frozen=True)

    trim: bool = True
    missing: tuple[str, ...] = MISSING

    def clean(self, text: str) -> str:
        """Return the text as a model receives it: trimmed, and empty if it means "missing"."""
        if self.trim:
            text = text.strip(BLANKS)
        return "" if text in self._spellings else text

    @cached_property
    def missing_numbers(self) -> tuple[float, ...]:
        """The texts in `missing` that are numbers."""
        return tuple(number for text in self.missing if (number := _number(text)) is not None)

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset(self.missing)


RAW_VALUES = ValueRules(trim=False, missing=())
"""The rules of versions without any: text is used unchanged."""


def _number(text: str) -> float | None:
    """Return a text as a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
