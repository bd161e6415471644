"""Who makes a request."""

from dataclasses import dataclass

from services.common.identity.limits import KeyLimits


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller that verified credentials identify."""

    account: str
    client_id: str
    """The OAuth client of a token, or the id of an API key."""
    scopes: frozenset[str]
    expires_at: int
    """Seconds since the epoch; a cached API key is verified again then."""
    token_id: str | None = None
    """The `jti` of a token; None for an API key."""
    user_id: str | None = None
    """The person whom a token was issued to; None for machines."""
    issued_at: int = 0
    """Seconds since the epoch."""
    limits: KeyLimits | None = None
    """The limits of an API key that has any."""

    @property
    def author(self) -> str:
        """Whose act a request is: the person's or, for a machine, the account's."""
        return self.user_id or self.account

    @property
    def api_key(self) -> str | None:
        """The id of the API key; None for a token."""
        return self.client_id if self.token_id is None else None

    @property
    def is_test(self) -> bool:
        """Whether predictions are not billed."""
        return self.limits is not None and self.limits.is_test
