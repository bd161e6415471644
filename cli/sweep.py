"""`tollgate pipelines sweep`: dispatch the drops that no event finished, as the function does."""

import json
import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from cli.models_app import AsJson
from cli.pipelines import pipelines, printable

if TYPE_CHECKING:
    from functions.on_data_arrival.sweep import Swept

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
FAILED = frozenset({"blocked", "failed", "given_up_before", "retried", "unsupported_name"})
"""Decisions that a person has to look at."""


@pipelines.command()
def sweep(as_json: AsJson = False) -> None:
    """Dispatch drops that have ended and were not dispatched, in all models' folders.

    It reads the settings of the functions (PIPELINE_…) and works by the same records as they do, so
    it may run at any time. Exit code 1 if a drop could not be dispatched.
    """
    swept = _run()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in swept]))
    else:
        for each in swept:
            where = f"{each.drop}: " if each.drop else ""
            line = f"{each.model:<24} {each.decision:<18} {where}{each.reason}"
            typer.echo(printable(line.rstrip()))
        dispatched = sum(each.decision == "dispatched" for each in swept)
        typer.echo(f"{len(swept)} models swept, {dispatched} drops dispatched")
    if any(each.decision in FAILED for each in swept):
        raise typer.Exit(1)


def _run() -> "list[Swept]":
    """Sweep as the function would; its log lines go to stderr."""
    try:
        from functions.common.faults import Unfinished
        from functions.common.pipeline import Pipeline
        from functions.common.settings import PipelineSettings
        from functions.on_data_arrival.sweep import sweep as sweep_all
    except ModuleNotFoundError:
        typer.echo("error: The functions are not installed here; run it from a checkout.", err=True)
        raise typer.Exit(1) from None

    settings = PipelineSettings.load()
    try:
        with (
            closing(Pipeline(settings, token=UserToken())) as pipeline,
            redirect_stdout(sys.stderr),
        ):
            return sweep_all(pipeline)
    except Unfinished as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


class UserToken:
    """Access tokens of the application default credentials: a person's, or a workflow's."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def get(self) -> str:
        """A token that is good for a while.

        Raises:
            StorageError: there are no credentials, or they give none.
        """
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        from functions.common.storage import StorageError

        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(Request())
        except GoogleAuthError as error:
            raise StorageError(f"No access token: {type(error).__name__}.") from error
        return str(self._credentials.token)
