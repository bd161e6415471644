"""`tollgate pipelines sweep`: dispatch lost drops, as the function does."""

import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from typing import Any

import google.auth
import typer
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from cli.options import AsJson
from cli.output import counted, exit_with_error, print_json, print_table
from functions.common.faults import Unfinished
from functions.common.pipeline import Pipeline
from functions.common.settings import PipelineSettings
from functions.common.storage import StorageError
from functions.on_data_arrival import sweep as on_data_arrival
from functions.on_data_arrival.sweep import Swept

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
FAILED = frozenset({"blocked", "failed", "given_up_before", "retried", "unsupported_name"})
"""Decisions that need a person's attention."""


def sweep(as_json: AsJson = False) -> None:
    """Dispatch the complete drops of all models that were not dispatched yet.

    The command uses the functions' settings (PIPELINE_…) and records, so it can run at any time.
    The exit code is 1 if a drop could not be dispatched.
    """
    swept = _run()
    if as_json:
        print_json([asdict(each) for each in swept])
    else:
        print_table([_describe(each) for each in swept])
        dispatched = sum(each.decision == "dispatched" for each in swept)
        models, drops = counted(len(swept), "model"), counted(dispatched, "drop")
        typer.echo(f"{models} swept, {drops} dispatched")
    if any(each.decision in FAILED for each in swept):
        raise typer.Exit(1)


def _describe(swept: Swept) -> tuple[str, str, str]:
    where = f"{swept.drop}: " if swept.drop else ""
    return swept.model, swept.decision, f"{where}{swept.reason}"


def _run() -> list[Swept]:
    """Sweep as the function does, with its log lines on stderr."""
    settings = PipelineSettings.load()
    try:
        with (
            closing(Pipeline(settings, token=UserToken())) as pipeline,
            redirect_stdout(sys.stderr),
        ):
            return on_data_arrival.sweep(pipeline)
    except Unfinished as error:
        exit_with_error(str(error))


class UserToken:
    """Access tokens of the application default credentials, of a person or a workflow."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def get(self) -> str:
        """Return a valid token.

        Raises:
            StorageError: there are no credentials, or they yield no token.
        """
        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(Request())
        except GoogleAuthError as error:
            raise StorageError(f"No access token: {type(error).__name__}.") from error
        return str(self._credentials.token)
