"""`tollgate train`: train a signed version from a model's data."""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import exit_with_error, print_error, warn

if TYPE_CHECKING:
    from trainer.outcome import Outcome


DATA_IS_READ = 0.1
"""The share of the work after which bad data is no longer possible."""


def train(
    model: Annotated[
        str, typer.Argument(help="The model's name, and its folder in the data store.")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="Column to predict; default: from dataset.json, else the last version."),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Put the version live if it passes its gate.")
    ] = False,
    once: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Idempotency key: report the outcome of a finished run with KEY."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why to release or force, for the record.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Pass the gate regardless; requires --reason.")
    ] = False,
    allow_signature_change: Annotated[
        bool,
        typer.Option(
            "--allow-signature-change",
            help="Allow columns, classes, target or task to differ from the last version.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train a new, signed version of MODEL.

    The exit code is 1 if it fails its gate, or if inference would refuse its release.
    """
    if force and not reason.strip():
        raise typer.BadParameter("--force requires --reason")
    with faults_as_one_line(), failures_as_one_line(), progress(first_shown=DATA_IS_READ) as report:
        # Imported here because scikit-learn takes seconds, and `tollgate --help` must be fast.
        from trainer.pipeline import train as run
        from trainer.settings import TrainerSettings

        outcome = run(
            TrainerSettings.load(),
            model,
            target=target,
            release=release,
            idempotency_key=once,
            reason=reason,
            force=force,
            allow_signature_change=allow_signature_change,
            report_progress=report,
        )
    if as_json:
        typer.echo(json.dumps(asdict(outcome)))
    else:
        for line in [*outcome.notes, _describe(outcome)]:
            typer.echo(line)
    if outcome.reasons and outcome.metrics:
        for line in _compare(outcome.metrics):
            typer.echo(line, err=True)
    for line in outcome.reasons:
        typer.echo(f"{'error' if outcome.gate == 'failed' else 'forced'}: {line}", err=True)
    for line in outcome.warnings:
        warn(line)
    if outcome.pinned:
        typer.echo(f"not released: {outcome.pinned}", err=True)
    if outcome.refused:
        print_error(outcome.refused)
    if outcome.is_failure:
        raise typer.Exit(1)


@contextmanager
def failures_as_one_line() -> Iterator[None]:
    """Turn an expected error into one line on stderr and exit code 1."""
    from services.common.model_store import StoreError
    from trainer.errors import TrainerError

    try:
        yield
    except (StoreError, TrainerError) as error:
        exit_with_error(str(error))


@contextmanager
def faults_as_one_line() -> Iterator[None]:
    """Turn an unexpected error into one line too: bad data must never print a traceback."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:300]
        exit_with_error(
            f"unexpected {type(error).__name__}: {message} "
            f"({Path(place.filename).name} line {place.lineno}). Please report this bug."
        )


def _describe(outcome: "Outcome") -> str:
    name = f"{outcome.model} {outcome.version}"
    state = f"live as release {outcome.release}" if outcome.release else "published"
    if outcome.pinned:
        state = "published, not released"
    elif outcome.refused:
        state = "published, refused by inference: joblib not allowed"
    if outcome.repeated:
        gate = f"gate {outcome.gate}, " if outcome.gate else ""
        return f"{name}: a run with this key has already finished: {gate}{state}"
    metrics = outcome.metrics
    measured = ", ".join(
        f"{metric} {value:.4g} (baseline: {metrics['dummy'][metric]:.4g})"
        for metric, value in metrics["candidate"].items()
    )
    return f"{name}: gate {outcome.gate}, {state}; {metrics['chosen']}, {measured}"


def _compare(metrics: dict[str, Any]) -> list[str]:
    """Return a table of the metrics of this version, the live version and the baseline."""
    names = list(metrics["dummy"])  # the stored key of the baseline
    compared = {"this version": metrics["candidate"]}
    if metrics["live"]:
        compared["live version"] = metrics["live"]
    compared["baseline"] = metrics["dummy"]
    lines = [f"{'':<18}" + "".join(f"{name:>19}" for name in names)]
    for label, values in compared.items():
        cells = (f"{values[name]:>19.4g}" if name in values else f"{'–':>19}" for name in names)
        lines.append(f"{label:<18}" + "".join(cells))
    return lines


@contextmanager
def progress(*, first_shown: float = 0.0) -> Iterator[Callable[[str, float], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise a line per step.

    Args:
        first_shown: hold lines until this share is reached, so that an early failure prints only
            its error.
    """
    if not sys.stderr.isatty():
        waiting: list[str] = []

        def report(doing: str, share: float) -> None:
            waiting.append(f"{share:4.0%} {doing}")
            if share >= first_shown:
                typer.echo("\n".join(waiting), err=True)
                waiting.clear()

        yield report
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)
