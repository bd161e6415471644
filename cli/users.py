"""`tollgate users`: manage users from the operator's shell."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from cli.options import AsJson
from cli.output import exit_with_error, print_json
from services.auth.audit.service import OPERATOR
from services.auth.models import User
from services.auth.passwords import PasswordHasher
from services.auth.settings import AuthSettings
from services.auth.users import totp
from services.auth.users.service import (
    LastAdministrator,
    UserNotFound,
    create_user,
    find_user_by_email,
    set_disabled,
)
from services.common.db.database import Database
from services.common.errors import BodyInvalid, ServiceError

Email = Annotated[
    str, typer.Argument(metavar="EMAIL", help="The user's e-mail address, in any spelling.")
]
T = TypeVar("T")


def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The user's e-mail address.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an administrator.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a user; print its id and, unless one is given, its random password."""
    given = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    password = given or secrets.token_urlsafe(18)
    user_id = asyncio.run(_create(email=email, password=password, admin=admin))
    shown = {"id": user_id} | ({} if given else {"password": password})
    if as_json:
        print_json(shown)
    else:
        typer.echo("\n".join(shown.values()))


def disable(
    email: Email,
    force: Annotated[
        bool, typer.Option("--force", help="Disable even the last administrator.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Disable a user: block sign-in and reject the user's tokens, clients and API keys.

    Auth rejects its access tokens at once, inference and billing within five seconds.
    """
    _set_disabled(email, disabled=True, force=force, as_json=as_json)


def enable(email: Email, as_json: AsJson = False) -> None:
    """Enable a disabled user, who then must sign in again."""
    _set_disabled(email, disabled=False, force=False, as_json=as_json)


def _set_disabled(email: str, *, disabled: bool, force: bool, as_json: bool) -> None:
    user, changed = asyncio.run(_change(email=email, disabled=disabled, force=force))
    if as_json:
        print_json({"id": user.id, "email": user.email, "disabled": disabled})
        return
    state = "disabled" if disabled else "enabled"
    typer.echo(f"{user.email}: {state}" if changed else f"{user.email}: already {state}")


def reset_second_factor(email: Email, as_json: AsJson = False) -> None:
    """Turn off the second factor of a user who has lost it; their password is enough again.

    Make sure that it is the user who asks. The user is notified by e-mail.
    """
    user, changed = asyncio.run(_in_database(lambda session: _reset(session, email)))
    if as_json:
        print_json({"id": user.id, "email": user.email, "changed": changed})
        return
    typer.echo(f"{user.email}: second factor {'turned off' if changed else 'was not on'}")


async def _reset(session: AsyncSession, email: str) -> tuple[User, bool]:
    user = await find_user_by_email(session, email=email)
    if user is None:
        raise UserNotFound()
    return user, await totp.disable(session, user=user, actor=OPERATOR)


async def _create(*, email: str, password: str, admin: bool) -> str:
    """Create a user in auth's database and return its id."""
    hasher = PasswordHasher(threads=1)
    try:
        user = await _in_database(
            lambda session: create_user(
                session, hasher=hasher, email=email, password=password, admin=admin
            )
        )
    finally:
        hasher.close()
    return user.id


async def _change(*, email: str, disabled: bool, force: bool) -> tuple[User, bool]:
    """Disable or enable a user in auth's database; return it and whether it changed."""
    return await _in_database(
        lambda session: set_disabled(
            session, email=email, disabled=disabled, allow_last_admin=force
        )
    )


async def _in_database(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in one transaction of auth's database; exit with an error if it fails."""
    database = Database(AuthSettings.load().database_url.get_secret_value())
    try:
        async with database.transaction() as session:
            return await work(session)
    except BodyInvalid as error:
        reason = " ".join(problem["msg"] for problem in error.extra["errors"])
    except LastAdministrator:
        reason = "This is the last administrator; use --force to disable it anyway."
    except ServiceError as error:
        reason = error.detail
    except UnicodeEncodeError:
        reason = "The e-mail address must be valid UTF-8."
    except SQLAlchemyError:
        reason = "The database rejected the change; is it migrated?"
    finally:
        await database.close()
    exit_with_error(reason)
