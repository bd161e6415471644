"""`/users/me`: what users do with their own data, and their second factor."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.auth.audit.requests import Address
from services.auth.callers import LoginNeeded, Person, get_person
from services.auth.models import User
from services.auth.organisations.memberships import LastOwner
from services.auth.signing.vault import Vault
from services.auth.tokens.guesses import TooManyGuesses
from services.auth.users import profile, totp
from services.auth.users.export import export_user
from services.auth.users.profile import PasswordChanger
from services.auth.users.router import OwnUserRead
from services.auth.users.service import EmailTaken, LastAdministrator
from services.common.db.database import Database, Transaction
from services.common.errors import BodyInvalid, Unauthenticated, Unavailable, error_responses
from services.common.http.routing import new_router
from services.common.identity.guards import AnyCaller

router: APIRouter = new_router(prefix="/users/me", tag="users")

_errors = (Unauthenticated, LoginNeeded)


async def _person_now(caller: AnyCaller, request: Request) -> User:
    database: Database = request.app.state.database
    async with database.snapshot() as session:
        return await get_person(session, caller=caller)


PersonNow = Annotated[User, Depends(_person_now)]
"""The calling user, for work that has transactions of its own."""


async def _vault(request: Request) -> Vault:
    vault: Vault = request.app.state.vault
    return vault


OpenVault = Annotated[Vault, Depends(_vault)]
"""What encrypts secrets at rest."""


class UserUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    email: str = Field(default="", max_length=1000, json_schema_extra={"format": "email"})
    name: str | None = Field(default=None, max_length=100)


class PasswordUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    current: str
    new: str = Field(description="8 to 1024 characters.")


class TotpEnrolment(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    secret: str = Field(description="For the authenticator app, in base 32; shown only once.")
    uri: str = Field(description="The same as an `otpauth://` URI, for a QR code.")
    recovery_codes: list[str] = Field(description="Each replaces a code once.")


class TotpCode(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    code: str = Field(max_length=20, examples=["123456"])


@router.patch(
    "",
    response_model=OwnUserRead,
    response_model_exclude_none=True,
    responses=error_responses(*_errors, EmailTaken, TooManyGuesses, BodyInvalid),
)
async def update_own_user(
    body: UserUpdate, user: Person, session: Transaction, request: Request, address: Address
) -> User:
    """Change the name or the e-mail address. A new address gets a message with a link that verifies
    it; in the registration mode `verify` it counts only then. Sending the current, unverified
    address requests such a message, too."""
    if "email" in body.model_fields_set and not body.email:
        raise BodyInvalid([{"loc": ["body", "email"], "msg": "Must be an e-mail address."}])
    await profile.update_profile(
        session,
        user=user,
        changes=body.model_dump(exclude_unset=True),
        verify_first=request.app.state.registration == "verify",
        address=address,
    )
    return user


@router.delete(
    "", status_code=204, responses=error_responses(*_errors, LastAdministrator, LastOwner)
)
async def delete_own_user(user: Person, session: Transaction, address: Address) -> None:
    """Delete the calling user and their credentials. Usage stays, without identity. The last owner
    of an organisation must appoint another one first."""
    await profile.delete_user(session, user=user, address=address)


@router.get("/export", responses=error_responses(*_errors))
async def export_own_user(
    user: Person, session: Transaction, address: Address, response: Response
) -> dict[str, Any]:
    """Return everything that auth stores about the calling user, without secrets."""
    response.headers["Cache-Control"] = "no-store"
    return await export_user(session, user=user, address=address)


@router.post(
    "/password",
    status_code=204,
    responses=error_responses(
        *_errors, profile.WrongPassword, TooManyGuesses, BodyInvalid, Unavailable
    ),
)
async def change_password(
    body: PasswordUpdate, user: PersonNow, request: Request, address: Address
) -> None:
    """Change the password, which ends all sign-ins and revokes their tokens."""
    changer: PasswordChanger = request.app.state.password_changer
    await changer.change(user=user, current=body.current, new=body.new, address=address)


@router.post(
    "/totp", response_model=TotpEnrolment, responses=error_responses(*_errors, totp.TotpEnabled)
)
async def start_totp(
    user: Person, session: Transaction, vault: OpenVault, response: Response
) -> totp.Enrolment:
    """Return a secret for an authenticator app, and recovery codes. Sign-ins need a code only once
    one is confirmed."""
    response.headers["Cache-Control"] = "no-store"
    return await totp.start_enrolment(session, user=user, vault=vault)


@router.post(
    "/totp/confirm",
    status_code=204,
    responses=error_responses(*_errors, totp.TotpEnabled, BodyInvalid),
)
async def confirm_totp(
    body: TotpCode, user: Person, session: Transaction, vault: OpenVault, address: Address
) -> None:
    """Turn the second factor on: from now on `/token` needs the form field `totp`."""
    await totp.confirm_enrolment(session, user=user, code=body.code, vault=vault, address=address)


@router.delete("/totp", status_code=204, responses=error_responses(*_errors))
async def disable_totp(user: Person, session: Transaction, address: Address) -> None:
    """Turn the second factor off."""
    await totp.disable(session, user=user, actor=user.id, address=address)
