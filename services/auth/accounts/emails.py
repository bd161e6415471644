"""One spelling for every e-mail address, so that one person has one account.

`normalise_email` gives the form under which an address is stored and looked up. `fold_email` is
coarser: it also merges letters that belong to two addresses, such as `ß` and `ss`. Older versions
stored that form; today failed log-ins are counted under it.
"""

import re
import unicodedata

import idna

from services.common.errors import BodyInvalid

MAX_EMAIL_CHARS = 254

_MAX_DOMAIN_CHARS = 253
_SHAPE = re.compile(r"[^@]{1,64}@[^@.]+(\.[^@.]+)*")


def normalise_email(text: str) -> str:
    """Return the form under which an address is stored and looked up.

    The domain is its Unicode form by UTS #46 (non-transitional) and IDNA 2008, so that letter
    case, width, other full stops and `xn--` make no difference, while `ß` and `ss` do. The local
    part has NFKC and simple case folding: no mail provider of note distinguishes `Ada` from `ada`,
    and two accounts a letter's case apart would only serve fraud. A domain that is not one under
    IDNA, which `check_email` refuses, is treated like a local part.
    """
    local, at, domain = unicodedata.normalize("NFKC", text.strip()).rpartition("@")
    return f"{_fold_simply(local)}{at}{_as_unicode(domain) or _fold_simply(domain)}".strip()


def fold_email(text: str) -> str:
    """Return the form that older versions stored: Unicode's NFKC_Casefold (UAX #44), in which
    `ß` is `ss`."""
    folded = unicodedata.normalize("NFD", text.strip())
    for _ in range(2):  # folding can undo the composition, and composing the folding
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return folded.strip()


def check_email(text: str) -> str:
    """Return the normal form of an address to register.

    Raises:
        BodyInvalid: it is not `local@domain` with a domain that DNS could have, or it has white
            space, control characters, invisible or unassigned ones.
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


def _as_unicode(domain: str) -> str | None:
    """The U-labels of a domain; None if IDNA 2008 does not allow it."""
    if len(domain) > _MAX_DOMAIN_CHARS:
        return None
    try:
        return idna.decode(idna.encode(domain, uts46=True))
    except (idna.IDNAError, UnicodeError):
        return None


def _fold_simply(text: str) -> str:
    """NFKC with every letter folded to one other, never to two: `ẞ` becomes `ß` and not `ss`."""
    for _ in range(3):  # folding can undo the composition, and composing the folding
        text = unicodedata.normalize("NFKC", text)
        text = "".join(map(_fold_letter, text))
    return unicodedata.normalize("NFKC", text)


def _fold_letter(letter: str) -> str:
    folded = letter.casefold()
    return folded if len(folded) == 1 else letter.lower()
