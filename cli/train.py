"""`tollgate train`: from the data in the bucket to a signed version."""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trainer.train import Outcome


DATA_IS_READ = 0.1
"""The share of a training's work after which nothing is wrong with the data."""


def train(
    model: Annotated[str, typer.Argument(help="The model, a folder of the data store.")],
    target: Annotated[
        str | None,
        typer.Option(help="Column to predict; default: dataset.json's, then the last version's."),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Put the version live if it passes its gate.")
    ] = False,
    once: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="If a run with KEY has finished, report its outcome."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is released or forced, for the record.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Let it through its gate; needs a --reason.")
    ] = False,
    allow_signature_change: Annotated[
        bool,
        typer.Option(
            "--allow-signature-change",
            help="Go on if columns, classes, target or task differ from the last version's.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train MODEL on its data: a new, signed version.

    Exit code 1 if it fails its gate, or was to go live and inference would refuse it.
    """
    if force and not reason.strip():
        raise typer.BadParameter("--force needs a --reason")
    with faults_as_one_line(), failures_as_one_line(), progress(first_shown=DATA_IS_READ) as report:
        # Here, as scikit-learn takes seconds to import and `tollgate --help` must not.
        from trainer.settings import TrainerSettings
        from trainer.train import train as run

        outcome = run(
            TrainerSettings.load(),
            model,
            target=target,
            release=release,
            once=once,
            reason=reason,
            force=force,
            allow_signature_change=allow_signature_change,
            report=report,
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
        typer.echo(f"warning: {line}", err=True)
    if outcome.pinned:
        typer.echo(f"not released: {outcome.pinned}", err=True)
    if outcome.refused:
        typer.echo(f"error: {outcome.refused}", err=True)
    if outcome.is_failure:
        raise typer.Exit(1)


@contextmanager
def failures_as_one_line() -> Iterator[None]:
    """Answer what may go wrong by one line on stderr and exit code 1."""
    from services.common.model_store import StoreError
    from trainer.errors import TrainerError

    try:
        yield
    except (StoreError, TrainerError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def faults_as_one_line() -> Iterator[None]:
    """Report an unexpected error by one line too: no data may print a traceback."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:300]
        typer.echo(
            f"error: unexpected {type(error).__name__}: {message} "
            f"({Path(place.filename).name} line {place.lineno}). Please report it as a bug.",
            err=True,
        )
        raise typer.Exit(1) from None


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
    """The metrics of this version, the live one and of the baseline, a line each."""
    names = list(metrics["dummy"])
    compared = {"this version": metrics["candidate"], "live version": metrics["live"] or {}}
    compared["baseline"] = metrics["dummy"]
    lines = [f"{'':<18}" + "".join(f"{name:>19}" for name in names)]
    for who, values in compared.items():
        cells = (f"{values[name]:>19.4g}" if name in values else f"{'–':>19}" for name in names)
        lines.append(f"{who:<18}" + "".join(cells))
    return lines


@contextmanager
def progress(*, first_shown: float = 0.0) -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal, a line a step elsewhere; on stderr, as stdout is for the outcome.

    Args:
        first_shown: lines below this share wait for the first that has reached it: what fails
            before then has its error on stderr, and nothing else.
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
