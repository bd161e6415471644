"""`tollgate login`, `tollgate logout` and `tollgate token`: a person's sign-in on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep, time
from typing import Annotated

import httpx
import typer

from cli.output import exit_with_error, printable, warn
from cli.settings import LocalSettings
from cli.sign_in import stored
from cli.sign_in.device import (
    EARLY_S,
    TIMEOUT_S,
    Prompt,
    SignInError,
    refresh,
    revoke,
    sign_in,
)

Issuer = Annotated[
    str,
    typer.Option(
        "--issuer", metavar="URL", help="Where to sign in; default: auth on this machine."
    ),
]


def login(issuer: Issuer = "") -> None:
    """Sign in with a browser, on this machine or any other.

    Prints an address and a code, and waits until you have entered the code there.
    """
    where = _issuer(issuer)
    with _failing_clearly(), _http() as http:
        tokens = sign_in(http, where, show=_show, sleep=sleep)
        with stored.locked():
            stored.save(where, tokens)
    typer.echo(f"Signed in. The tokens are in {stored.tokens_path()}.", err=True)


def logout(issuer: Issuer = "") -> None:
    """Sign out: revoke the tokens, and forget them."""
    where = _issuer(issuer)
    with _failing_clearly(), stored.locked(), _http() as http:
        tokens = stored.load(where)
        if tokens is None:
            typer.echo("You are not signed in.", err=True)
            return
        stored.save(where, None)
        try:
            revoke(http, where, tokens)
        except SignInError as error:
            warn(f"The tokens are forgotten here, but not revoked: {error}")
            return
    typer.echo("Signed out.", err=True)


def token(issuer: Issuer = "") -> None:
    """Print an access token of the person who is signed in; a new one if it is about to expire."""
    where = _issuer(issuer)
    with _failing_clearly(), stored.locked():
        tokens = stored.load(where)
        if tokens is None:
            exit_with_error("You are not signed in; run `tollgate login`.")
        if tokens.expires_at < time() + EARLY_S:
            with _http() as http:
                tokens = refresh(http, where, tokens)
            stored.save(where, tokens)
    typer.echo(tokens.access_token)


def _issuer(option: str) -> str:
    return option.rstrip("/") or f"http://127.0.0.1:{LocalSettings.load().auth_port}"


def _http() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_S)


def _show(prompt: Prompt) -> None:
    typer.echo(
        f"Open {printable(prompt.address)} in a browser and enter the code "
        f"{printable(prompt.code)},\nor open {printable(prompt.complete_address)}.",
        err=True,
    )


@contextmanager
def _failing_clearly() -> Iterator[None]:
    try:
        yield
    except SignInError as error:
        exit_with_error(str(error))
    except OSError as error:
        exit_with_error(f"{error.filename or stored.tokens_path()}: {error.strerror}")
