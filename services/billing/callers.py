"""The account a request is about."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import TypeAdapter, ValidationError

from services.common.contracts import NOT_A_UUID, AccountId
from services.common.errors import BodyInvalid, InsufficientScope
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

OtherAccount = Annotated[str | None, Query(description="Another account; needs the scope `admin`.")]
"""Plain text, because the scope is checked before the id."""

_account_id = TypeAdapter(AccountId)


def own_or_other(caller: Caller, account: str | None) -> str:
    """Return the caller's own account or, for an administrator, another.

    Raises:
        InsufficientScope: the caller names another account and is not an administrator.
        BodyInvalid: `account` is not a UUID.
    """
    if account is None:
        return caller.account
    if "admin" not in caller.scopes:
        raise InsufficientScope("admin")
    try:
        return _account_id.validate_python(account)
    except ValidationError as error:
        raise BodyInvalid([{"loc": ["query", "account"], "msg": NOT_A_UUID}]) from error


async def _account(
    caller: Annotated[Caller, Depends(RequireScope("usage:read"))], account: OtherAccount = None
) -> str:
    return own_or_other(caller, account)


Account = Annotated[str, Depends(_account)]
"""The account to read: the caller's own, or the one in `account=`."""


async def _managed(
    caller: Annotated[Caller, Depends(RequireScope("billing:manage"))],
    account: OtherAccount = None,
) -> str:
    return own_or_other(caller, account)


ManagedAccount = Annotated[str, Depends(_managed)]
"""The account whose billing is managed: the caller's own, or the one in `account=`."""
