"""The revocations that a process knows."""

from collections.abc import Iterable
from typing import NamedTuple

from services.common.contracts import RevocationKind, RevocationRead
from services.common.identity.caller import Caller


class _Entry(NamedTuple):
    """The newest revocation of one user, client and so on; times in seconds since the epoch."""

    issued_before: float
    until: float
    number: int


_Key = tuple[RevocationKind, str, str | None]
"""What a revocation names: a kind, an id and, if only one account's tokens are revoked, that."""


class Revocations:
    """The revocations in force, by what they name."""

    def __init__(self) -> None:
        self._entries: dict[_Key, _Entry] = {}
        self._clean_at = 0.0
        self.number = 0
        """How many have been added."""

    def add(self, revoked: Iterable[RevocationRead], *, now: float) -> None:
        """Add revocations; drop those that are no longer needed.

        Args:
            now: seconds since the epoch.
        """
        for each in revoked:
            self.number += 1
            self._entries[each.kind, each.id, each.account] = _Entry(
                each.issued_before.timestamp(), each.until.timestamp(), self.number
            )
        if now >= self._clean_at:
            self._clean_at = now + 60
            self._entries = {key: each for key, each in self._entries.items() if each.until > now}

    def clear(self) -> None:
        """Drop all revocations."""
        self._entries.clear()

    def covers(self, caller: Caller) -> bool:
        """Return whether the caller's token is revoked; auth decides about API keys."""
        entries = self._entries
        if caller.token_id is None or not entries:
            return False
        names: list[_Key] = [
            ("jti", caller.token_id, None),
            ("account", caller.account, None),
            ("client", caller.client_id, None),
        ]
        if caller.user_id is not None:
            names += (("user", caller.user_id, account) for account in (None, caller.account))
        return any(
            (entry := entries.get(name)) is not None and caller.issued_at < entry.issued_before
            for name in names
        )

    def names_since(self, number: int, caller: Caller) -> bool:
        """Return whether one added after a `number` names the caller's API key or its account."""
        if caller.token_id is not None:
            return False
        names: tuple[_Key, ...] = (
            ("api_key", caller.client_id, None),
            ("account", caller.account, None),
        )
        return any(
            (entry := self._entries.get(name)) is not None and entry.number > number
            for name in names
        )
