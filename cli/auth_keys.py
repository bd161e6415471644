"""`tollgate auth keys`: the keys that sign tokens."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from cli.options import AsJson
from cli.output import exit_with_error, print_json, print_table, warn
from services.auth.keys import utc_now
from services.auth.models import SigningKey
from services.auth.settings import AuthSettings
from services.auth.signing import service
from services.auth.signing.schedule import describe
from services.auth.signing.vault import Vault
from services.common.db.database import Database
from services.common.errors import ServiceError

T = TypeVar("T")

_BREAKS = (
    "Every access token issued until now is refused: by auth within seconds, by the other services "
    "within five minutes. People and programs need a new one; refresh tokens and API keys still "
    "work. For up to half a minute, a service may refuse a new token, too."
)


def rotate(
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Retire all present keys at once, because one has leaked. " + _BREAKS
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace the key that signs tokens, without invalidating any token.

    The new key is published at once and signs an hour later, in all replicas. The old one verifies
    tokens until the last that it signed has expired.
    """
    done = asyncio.run(_with_keys(lambda *keys: service.rotate(*keys, at_once=now)))
    if as_json:
        document = {"began": done.began, "retired": list(done.retired)}
        print_json(_as_document(done.new) | document)
        return
    published = "is published" if done.began else "is already published"
    typer.echo(f"{done.new.id} {published}, and signs from {_text(done.new.signs_from)}")
    if done.retired:
        typer.echo(f"retired: {', '.join(done.retired)}")
        warn(_BREAKS)


def list_all(as_json: AsJson = False) -> None:
    """List the keys, oldest first, and what each does now."""
    found = asyncio.run(_with_keys(lambda database, _: service.read_keys(database)))
    now = utc_now()
    states = [describe(key, found, now=now) for key in found]
    if as_json:
        print_json(
            [_as_document(key) | {"state": state} for key, state in zip(found, states, strict=True)]
        )
        return
    if not found:
        typer.echo("No keys yet; auth creates the first one when it starts")
    print_table(
        [
            (key.id, state, f"signs from {_text(key.signs_from)}", _retirement(key))
            for key, state in zip(found, states, strict=True)
        ]
    )


async def _with_keys(work: Callable[[Database, Vault], Awaitable[T]]) -> T:
    """Return the result of `work` on auth's database; exit with an error if it fails."""
    settings = AuthSettings.load()
    database = Database(settings.database_url.get_secret_value())
    try:
        return await work(database, Vault(settings.passphrases))
    except ServiceError as error:
        reason = error.detail
    except SQLAlchemyError:
        reason = "The database rejected the command; is it migrated?"
    finally:
        await database.close()
    exit_with_error(reason)


def _as_document(key: SigningKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "created_at": key.created_at.isoformat(),
        "signs_from": key.signs_from.isoformat(),
        "retires_at": key.retires_at.isoformat() if key.retires_at else None,
    }


def _retirement(key: SigningKey) -> str:
    return f"retires {_text(key.retires_at)}" if key.retires_at else ""


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"
