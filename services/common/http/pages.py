"""The headers of HTML pages."""

from collections.abc import Mapping


def page_headers(policy: Mapping[str, str]) -> dict[str, str]:
    """Return headers that keep a page from being framed, and limit it to what it needs.

    Args:
        policy: the directives of its `Content-Security-Policy`, by name.
    """
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
