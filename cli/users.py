"""`tollgate users`: manage users from the operator's shell."""

import asyncio
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.output import exit_with_error

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from services.auth.models import User

users = typer.Typer(help="Manage users.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="The user's e-mail, in any spelling.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
T = TypeVar("T")


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="The user's e-mail.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make it an administrator.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a user and print its id, and its random password unless one is given."""
    given = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    password = given or secrets.token_urlsafe(18)
    user_id = asyncio.run(_create(email=email, password=password, admin=admin))
    shown = {"id": user_id} | ({} if given else {"password": password})
    typer.echo(json.dumps(shown) if as_json else "\n".join(shown.values()))


@users.command()
def disable(
    email: Email,
    force: Annotated[
        bool, typer.Option("--force", help="Disable even the last administrator.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Disable a user: no login, and no new tokens for the user or its clients.

    Auth rejects its access tokens at once, inference and billing when they expire.
    """
    _set_disabled(email, disabled=True, force=force, as_json=as_json)


@users.command()
def enable(email: Email, as_json: AsJson = False) -> None:
    """Enable a disabled user, who then must log in again."""
    _set_disabled(email, disabled=False, force=False, as_json=as_json)


def _set_disabled(email: str, *, disabled: bool, force: bool, as_json: bool) -> None:
    user, changed = asyncio.run(_change(email=email, disabled=disabled, force=force))
    if as_json:
        typer.echo(json.dumps({"id": user.id, "email": user.email, "disabled": disabled}))
        return
    state = "disabled" if disabled else "enabled"
    typer.echo(f"{user.email}: {state}" if changed else f"{user.email}: already {state}")


async def _create(*, email: str, password: str, admin: bool) -> str:
    """Create a user in auth's database and return its id."""
    # Imported here because `tollgate --help` does not need a database.
    from services.auth.passwords import PasswordHasher
    from services.auth.users.service import create_user

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


async def _change(*, email: str, disabled: bool, force: bool) -> tuple["User", bool]:
    """Disable or enable a user in auth's database; return it and whether it changed."""
    from services.auth.users.service import set_disabled

    return await _in_database(
        lambda session: set_disabled(
            session, email=email, disabled=disabled, allow_last_admin=force
        )
    )


async def _in_database(work: "Callable[[AsyncSession], Awaitable[T]]") -> T:
    """Run `work` in one transaction of auth's database; exit with an error if it fails."""
    from sqlalchemy.exc import SQLAlchemyError

    from services.auth.settings import AuthSettings
    from services.common.db.database import Database
    from services.common.errors import BodyInvalid, ServiceError

    database = Database(AuthSettings.load().database_url.get_secret_value())
    try:
        async with database.transaction() as session:
            return await work(session)
    except BodyInvalid as error:
        reason = " ".join(problem["msg"] for problem in error.extra["errors"])
    except ServiceError as error:
        reason = error.detail
    except UnicodeEncodeError:
        reason = "The e-mail must be valid UTF-8."
    except SQLAlchemyError:
        reason = "The database rejected the change; is it migrated?"
    finally:
        await database.close()
    exit_with_error(reason)
