"""Find a service by the URL of any other one."""

import httpx


def find_service(http: httpx.Client, url: str, name: str) -> str:
    """Return the URL of a service, without a trailing slash.

    Args:
        url: of any service; if it names no others, it is taken for the one that is wanted.
        name: of the service that is wanted.

    Raises:
        HTTPError: the service cannot be reached.
        InvalidURL: the URL is not one.
    """
    url = url.rstrip("/")
    found = http.get(f"{url}/.well-known/tollgate")
    if found.is_error:
        return url
    named: str = found.json().get(name) or url
    return named.rstrip("/")
