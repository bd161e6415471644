"""One spelling for every e-mail address, so that one person has one account."""

import re
import unicodedata

from services.common.errors import BodyInvalid

MAX_EMAIL_CHARS = 254

_SHAPE = re.compile(r"[^@]{1,64}@[^@.]+(\.[^@.]+)*")


def normalise_email(text: str) -> str:
    """The form under which an address is stored, looked up and counted.

    The rule: outer white space off, then Unicode's NFKC_Casefold (UAX #44) without its removal of
    ignorable characters, which are refused instead. So `Ada@Example.com`, `ADA@example.com` and
    its full-width spelling are one account. The local part is folded too: no mail provider of
    note tells `Ada` from `ada`, and two accounts a letter's case apart would only serve fraud.
    """
    folded = unicodedata.normalize("NFD", text.strip())
    for _ in range(2):  # folding can undo the composition, and composing the folding
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return folded.strip()


def check_email(text: str) -> str:
    """The normal form of an address to register.

    Raises:
        BodyInvalid: it is not `local@domain`, or holds white space, control characters, invisible
            or unassigned ones.
    """
    email = normalise_email(text)
    hidden = any(unicodedata.category(character)[0] in "CZ" for character in email)
    if hidden or len(email) > MAX_EMAIL_CHARS or not _SHAPE.fullmatch(email):
        raise BodyInvalid([{"loc": ["body", "email"], "msg": "This is not an e-mail address."}])
    return email
