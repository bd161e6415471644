"""The headers of HTML pages."""

from collections.abc import Mapping


def page_headers(policy: Mapping[str, str]) -> dict[str, str]:
    """Return headers that limit a page to what it needs, besides those of every response.

    Args:
        policy: the directives of its `Content-Security-Policy`, by name.
    """
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
    }
