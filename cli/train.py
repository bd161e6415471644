"""`tollgate train`: train a signed version from a model's data."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson
from cli.output import exit_with_error, print_error, print_json, print_table, progress, warn

if TYPE_CHECKING:
    from trainer.outcome import Outcome


DATA_IS_READ = 0.1
"""The share of the work after which bad data is no longer possible."""


def train(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="The model's name, and its folder in the data store."),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column to predict; default: from dataset.json, else the last version's.",
        ),
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
    as_json: AsJson = False,
) -> None:
    """Train a new, signed version of MODEL.

    The exit code is 1 if the version fails its gate, or if inference would refuse its release.
    """
    if force and not reason.strip():
        raise typer.BadParameter("--force requires --reason")
    # Imported here because scikit-learn takes seconds, and `tollgate --help` must be fast.
    from cli.stores import failures_as_one_line
    from trainer.errors import TrainerError
    from trainer.settings import TrainerSettings

    with (
        faults_as_one_line(),
        failures_as_one_line(TrainerError),
        progress(first_shown=DATA_IS_READ) as report,
    ):
        from trainer.pipeline import train as run

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
        print_json(asdict(outcome))
    else:
        for line in [*outcome.notes, _describe(outcome)]:
            typer.echo(line)
    if outcome.reasons and outcome.metrics:
        print_table(_compare(outcome.metrics), err=True)
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


def _compare(metrics: dict[str, Any]) -> list[list[str]]:
    """Return a table of the metrics of this version, the live version and the baseline."""
    names = list(metrics["dummy"])  # the stored key of the baseline
    compared = {"this version": metrics["candidate"]}
    if metrics["live"]:
        compared["live version"] = metrics["live"]
    compared["baseline"] = metrics["dummy"]
    rows = [
        [label, *(f"{values[name]:.4g}" if name in values else "–" for name in names)]
        for label, values in compared.items()
    ]
    return [["", *names], *rows]
