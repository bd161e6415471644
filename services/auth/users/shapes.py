"""What a sign-in needs to know about a user, loaded by a session or by a statement of its columns.

A sign-in only reads, so it can do without an object of the session, which takes longer to load than
the row does.
"""

from datetime import datetime
from typing import Protocol


class Namesake(Protocol):
    """A user whose password is verified."""

    @property
    def id(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def password_hash(self) -> str: ...
    @property
    def disabled_at(self) -> datetime | None: ...


class LoginUser(Protocol):
    """A user who signs in; the fields are those of `models.User`."""

    @property
    def id(self) -> str: ...
    @property
    def password_hash(self) -> str: ...
    @property
    def is_admin(self) -> bool: ...
    @property
    def disabled_at(self) -> datetime | None: ...
    @property
    def tokens_from(self) -> datetime | None: ...
    @property
    def totp_secret(self) -> str | None: ...
    @property
    def totp_confirmed_at(self) -> datetime | None: ...
