"""Why an authorization request fails, and who gets to see it (RFC 6749 §4.1.2.1)."""


class RequestRejectedError(Exception):
    """The client or its redirect URI is wrong, so nothing may be sent there: the person sees it.

    Args:
        text: one sentence for the person.
    """

    def __init__(self, text: str, *, client_id: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.client_id = client_id


class AuthorizationError(Exception):
    """An error that the client gets at its redirect URI.

    Args:
        code: one of RFC 6749 §4.1.2.1 or OpenID Connect Core §3.1.2.6.
        description: one sentence for the client's developers, in ASCII without quotes.
    """

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code)
        self.code = code
        self.description = description
