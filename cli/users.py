"""`tollgate users`: accounts, from the shell of whoever runs the installation."""

import asyncio
import json
import secrets
import sys
from typing import Annotated

import typer

users = typer.Typer(help="Accounts.", no_args_is_help=True)


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="The account's e-mail.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make it an administrator.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create an account and print its id; without a given password, also a random one, once."""
    given = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    password = given or secrets.token_urlsafe(18)
    account = asyncio.run(_create(email=email, password=password, admin=admin))
    shown = {"id": account} | ({} if given else {"password": password})
    typer.echo(json.dumps(shown) if as_json else "\n".join(shown.values()))


async def _create(*, email: str, password: str, admin: bool) -> str:
    """The new account's id, made in the database that auth works on.

    Raises:
        typer.Exit: it cannot be made; one line on stderr says why.
    """
    # Imported here, because `tollgate --help` has no need of a database.
    from services.auth.accounts.service import create_account
    from services.auth.passwords import PasswordHasher
    from services.auth.settings import AuthSettings
    from services.common.db import Database
    from services.common.errors import BodyInvalid, ServiceError

    database = Database(AuthSettings.load().database_url.get_secret_value())
    hasher = PasswordHasher(threads=1)
    try:
        async with database.transaction() as session:
            user = await create_account(
                session, hasher=hasher, email=email, password=password, admin=admin
            )
            return user.id
    except BodyInvalid as error:
        told = " ".join(problem["msg"] for problem in error.extra["errors"])
    except ServiceError as error:
        told = error.detail
    finally:
        hasher.close()
        await database.close()
    typer.echo(f"error: {told}", err=True)
    raise typer.Exit(1)
