"""Long names as HTML that breaks between their parts."""

from markupsafe import Markup

from services.common.http.breaking import split_name


def breakable(name: str) -> Markup:
    """Return an e-mail address, path or identifier as HTML that breaks between its parts."""
    return Markup("<wbr>").join(split_name(name))
