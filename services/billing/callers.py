"""Whose account a request is about."""

from typing import Annotated

from fastapi import Depends, Query

from services.common.contracts import AccountId
from services.common.errors import InsufficientScope
from services.common.identity import Caller, Needs

OtherAccount = Annotated[
    AccountId | None, Query(description="Another account; needs the scope `admin`.")
]


def own_or_other(caller: Caller, account: str | None) -> str:
    """The caller's own account, or for an administrator another.

    Raises:
        InsufficientScope: another account, and the caller is no administrator.
    """
    if account is not None and "admin" not in caller.scopes:
        raise InsufficientScope("admin")
    return account or caller.account


def _account(
    caller: Annotated[Caller, Depends(Needs("usage:read"))], account: OtherAccount = None
) -> str:
    return own_or_other(caller, account)


Account = Annotated[str, Depends(_account)]
"""The account to read of: the caller's own, or the one `account=` names."""
