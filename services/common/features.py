"""How the values of features are read: the same in training and in a request.

A version's signature states the rules it was trained under, so that serving applies the same ones.
"""

import math
from functools import cached_property

from pydantic import BaseModel, ConfigDict

# All that Unicode calls white space, and what is invisible: zero-width blanks and byte-order marks.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
# pandas' list, but for "None": that is a category in many a data set.
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
    """Which spellings mean "missing", and whether blanks around text count.

    Args:
        trim: whether blanks at both ends of a text are removed, before anything else.
        missing: spellings that mean "missing", besides the empty text; upper and lower case differ.
            One that is a number, such as -999, applies to number columns too.
    """

    model_config = ConfigDict(frozen=True)

    trim: bool = True
    missing: tuple[str, ...] = MISSING

    def clean(self, text: str) -> str:
        """Return the text as a model takes it: trimmed, and empty if it means "missing"."""
        if self.trim:
            text = text.strip(BLANKS)
        return "" if text in self._spellings else text

    @cached_property
    def missing_numbers(self) -> tuple[float, ...]:
        """The spellings that are numbers."""
        return tuple(number for text in self.missing if (number := _number(text)) is not None)

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset(self.missing)


AS_GIVEN = ValueRules(trim=False, missing=())
"""The rules of versions that state none: text is taken as it comes."""


def _number(text: str) -> float | None:
    """Return the finite number that a text is, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
