"""What each role in an account may do."""

from collections.abc import Mapping
from typing import Literal

Role = Literal["owner", "admin", "developer", "billing", "viewer"]

ROLE_SCOPES: Mapping[Role, tuple[str, ...]] = {
    "owner": ("predict", "usage:read", "keys:write", "billing:manage", "members:write"),
    "admin": ("predict", "usage:read", "keys:write", "billing:manage", "members:write"),
    "developer": ("predict", "usage:read", "keys:write"),
    "billing": ("usage:read", "billing:manage"),
    "viewer": ("usage:read",),
}
PERSONAL: Role = "owner"
"""The role of all users in their own accounts."""
PLATFORM_ADMIN = "admin"
"""The scope of the platform's administrators, who may have it besides those of their role."""


def scopes_of(role: Role, *, is_admin: bool) -> str:
    """Return all scopes that tokens may have, separated by spaces.

    Args:
        is_admin: whether the user is an administrator of the platform.
    """
    scopes = ROLE_SCOPES[role]
    return " ".join((*scopes, PLATFORM_ADMIN) if is_admin else scopes)


def loses_scopes(old: Role, new: Role) -> bool:
    """Return whether a role lacks a scope of another."""
    return not set(ROLE_SCOPES[old]) <= set(ROLE_SCOPES[new])
