"""Reset a password or verify an e-mail address by a link in an e-mail, without an access token."""

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from services.auth.audit.requests import Address, Failures
from services.auth.links.service import LinkInvalid
from services.auth.tokens.guesses import TooManyGuesses
from services.auth.users import mailed
from services.auth.users.service import EmailTaken
from services.common.db.database import Transaction
from services.common.errors import BodyInvalid, Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="users")


class ResetRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(max_length=1000, json_schema_extra={"format": "email"})


class ResetConfirmation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=200, description="From the e-mail.")
    password: str = Field(description="8 to 1024 characters.")


class Verification(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=200, description="From the e-mail.")


class Accepted(BaseModel):
    status: str = "accepted"


@router.post(
    "/password-reset",
    status_code=202,
    responses=error_responses(BodyInvalid, TooManyGuesses, Unavailable),
)
@public
async def request_password_reset(
    body: ResetRequest, session: Transaction, address: Address
) -> Accepted:
    """Mail a link that resets the password, valid for an hour. The response is the same whether or
    not the address has a user."""
    await mailed.request_reset(session, email=body.email, address=address)
    return Accepted()


@router.post(
    "/password-reset/confirm",
    status_code=204,
    responses=error_responses(LinkInvalid, BodyInvalid, Unavailable),
)
@public
async def reset_password(
    body: ResetConfirmation, request: Request, address: Address, failures: Failures
) -> None:
    """Set a new password by the token in an e-mail; it ends all sign-ins and can be used once."""
    try:
        await mailed.reset_password(
            request.app.state.database,
            hasher=request.app.state.hasher,
            token=body.token,
            password=body.password,
            address=address,
        )
    except LinkInvalid:
        failures.note("link_rejected", address=address)
        raise


@router.post(
    "/verify-email",
    status_code=204,
    responses=error_responses(LinkInvalid, EmailTaken, BodyInvalid, Unavailable),
)
@public
async def verify_email(
    body: Verification, session: Transaction, address: Address, failures: Failures
) -> None:
    """Verify an e-mail address, or complete a registration, by the token in an e-mail."""
    try:
        await mailed.verify_email(session, token=body.token, address=address)
    except LinkInvalid:
        failures.note("link_rejected", address=address)
        raise
