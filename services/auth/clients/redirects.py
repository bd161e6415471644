"""Redirect URIs: which may be registered, and which a request may use (RFC 8252, RFC 9700 §2.1)."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

MAX_URI_CHARS = 500
MAX_URIS = 10

_LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
"""The characters of a URI without a fragment (RFC 3986)."""
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+")
_LOOPBACK_PORT = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(?=[/?]|$)")


def find_problem(uri: str) -> str | None:
    """Return why a URI cannot be registered as a redirect URI, or None if it can."""
    if len(uri) > MAX_URI_CHARS:
        return f"Must have at most {MAX_URI_CHARS} characters."
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return "Must be a URI."
    if not _PLAIN.fullmatch(uri) or not _HOST.fullmatch(parts.hostname or "") or port == 0:
        return "Must be a URI with a host and without a fragment."
    if "@" in parts.netloc:
        return "Must not have a user name."
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK_HOSTS):
        return None
    return "Must start with https://, or with http:// and 127.0.0.1, [::1] or localhost."


def is_registered(uri: str, registered: Sequence[str]) -> bool:
    """Return whether a request may use a redirect URI: exactly a registered one.

    Only the port of a loopback address may differ, because a program on someone's machine takes the
    port that is free (RFC 8252 §7.3).
    """
    if uri in registered:
        return True
    if find_problem(uri) is not None or not is_loopback(uri):
        return False
    return _without_port(uri) in map(_without_port, filter(is_loopback, registered))


def is_loopback(uri: str) -> bool:
    """Return whether a redirect URI leads to an IP address of the same machine."""
    return _LOOPBACK_PORT.match(uri) is not None


def with_parameters(uri: str, parameters: dict[str, str]) -> str:
    """Return a redirect URI with more parameters in its query."""
    separator = "&" if "?" in uri else "?"
    return f"{uri}{separator}{urlencode(parameters)}"


def source_of(uri: str) -> str:
    """Return the source with which a Content-Security-Policy allows a redirect URI."""
    parts = urlsplit(uri)
    if parts.hostname and ":" in parts.hostname:
        return f"{parts.scheme}:"  # policies cannot name an IPv6 address
    return f"{parts.scheme}://{parts.netloc}"


def _without_port(uri: str) -> str:
    return _LOOPBACK_PORT.sub(r"\1", uri, count=1)
