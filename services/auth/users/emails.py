"""Normalise e-mail addresses, so that every spelling of an address is the same user.

`normalise_email` returns the form in which an address is stored and looked up. `fold_email` is
coarser: it also merges letters that distinguish two addresses, such as `ß` and `ss`. Older versions
stored that form; now it is only used to count failed sign-ins.
"""

import re
import unicodedata
from functools import lru_cache

import idna

from services.common.errors import BodyInvalid

MAX_EMAIL_CHARS = 254

_MAX_DOMAIN_CHARS = 253
_SHAPE = re.compile(r"[^@]{1,64}@[^@.]+(\.[^@.]+)*")


def normalise_email(text: str) -> str:
    """Return the form in which an address is stored and looked up.

    The domain is converted to Unicode by UTS #46 (non-transitional) and IDNA 2008, so that letter
    case, width, other full stops and `xn--` make no difference, but `ß` and `ss` do. The local part
    gets NFKC and simple case folding: no major mail provider distinguishes `Ada` from `ada`, and
    users that differ only in case would mostly help fraud. A domain that is invalid under IDNA,
    which `check_email` rejects, is treated like a local part.
    """
    local, at, domain = unicodedata.normalize("NFKC", text.strip()).rpartition("@")
    return f"{_fold_simply(local)}{at}{_as_unicode(domain) or _fold_simply(domain)}".strip()


def fold_email(text: str) -> str:
    """Return the form that older versions stored: Unicode's NFKC_Casefold (UAX #44).

    It turns `ß` into `ss`.
    """
    folded = unicodedata.normalize("NFD", text.strip())
    for _ in range(2):  # folding can undo composition and vice versa
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return folded.strip()


def check_email(text: str) -> str:
    """Return the normalised form of an address to register.

    Raises:
        BodyInvalid: it is not `local@domain` with a valid DNS domain, or it contains white space
            or control, invisible or unassigned characters.
    """
    email = normalise_email(text)
    domain = email.rpartition("@")[2]
    hidden = any(unicodedata.category(character)[0] in "CZ" for character in text.strip() + email)
    if (
        hidden
        or len(email) > MAX_EMAIL_CHARS
        or not _SHAPE.fullmatch(email)
        or _as_unicode(domain) is None
    ):
        raise BodyInvalid([{"loc": ["body", "email"], "msg": "Must be an e-mail address."}])
    return email


@lru_cache(maxsize=1024)  # most people share a few domains, and IDNA takes longer than a query
def _as_unicode(domain: str) -> str | None:
    """Return a domain in Unicode, or None if IDNA 2008 does not allow it."""
    if len(domain) > _MAX_DOMAIN_CHARS:
        return None
    try:
        return idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        return None


def _fold_simply(text: str) -> str:
    """Apply NFKC and fold each letter to a single letter: `ẞ` becomes `ß`, not `ss`."""
    if text.isascii():
        return text.lower()
    for _ in range(3):  # folding can undo composition and vice versa
        text = unicodedata.normalize("NFKC", text)
        text = "".join(map(_fold_letter, text))
    return unicodedata.normalize("NFKC", text)


def _fold_letter(letter: str) -> str:
    folded = letter.casefold()
    return folded if len(folded) == 1 else letter.lower()
