"""`tollgate train`: train a signed version from a model's data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import (
    AllowSignatureChange,
    AsJson,
    Force,
    Release,
    ReleaseReason,
    require_reason,
)
from cli.output import exit_with_error, print_error, print_json, print_table, progress, warn
from cli.supervised import SupervisedError, describe_fault, run_supervised

if TYPE_CHECKING:
    from trainer.outcome import Outcome


PIPELINE_TIMEOUT_S = 3600.0

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
    release: Release = False,
    once: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Idempotency key: report the outcome of a finished run with KEY."
        ),
    ] = None,
    reason: ReleaseReason = "",
    force: Force = False,
    allow_signature_change: AllowSignatureChange = False,
    pipeline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:FUNCTION]",
            help="Also try the estimator that a function in this Python file returns; the default "
            "function is make_pipeline.",
        ),
    ] = None,
    only_pipeline: Annotated[
        bool, typer.Option("--only-pipeline", help="Try no other candidate.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long the code of --pipeline may run altogether.", min=0.1
        ),
    ] = PIPELINE_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Train a new, signed version of MODEL.

    The exit code is 1 if the version fails its gate, or if inference would refuse its release.
    """
    require_reason(force=force, reason=reason)
    if only_pipeline and pipeline is None:
        raise typer.BadParameter("--only-pipeline requires --pipeline")
    # Imported here because scikit-learn takes seconds, and `tollgate --help` must be fast.
    from cli.stores import failures_as_one_line
    from trainer.errors import TrainerError
    from trainer.settings import TrainerSettings

    with (
        faults_as_one_line(),
        failures_as_one_line(TrainerError, SupervisedError),
        progress(first_shown=DATA_IS_READ) as report,
    ):
        arguments: dict[str, Any] = {
            "settings": TrainerSettings.load(),
            "model": model,
            "target": target,
            "release": release,
            "idempotency_key": once,
            "reason": reason,
            "force": force,
            "allow_signature_change": allow_signature_change,
            "report_progress": report,
        }
        if pipeline is None:
            from trainer.pipeline import train as run

            outcome = run(**arguments)
        else:
            from trainer.modelling.own_pipeline import PipelineFile

            path, function = _split_function(pipeline)
            outcome = run_supervised(
                "trainer.pipeline:train",
                code=path.name,
                timeout_s=timeout,
                pipeline=PipelineFile(path, function, only=only_pipeline),
                **arguments,
            )
    print_outcome(outcome, as_json=as_json)


def print_outcome(outcome: "Outcome", *, as_json: bool) -> None:
    """Print the outcome of a training or an import, and exit with 1 if it failed."""
    if as_json:
        print_json(asdict(outcome))
    else:
        for line in [*outcome.notes, _describe(outcome)]:
            typer.echo(line)
    if outcome.reasons and outcome.metrics.get("candidate"):
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
        exit_with_error(describe_fault(error))


def _split_function(pipeline: str) -> tuple[Path, str]:
    """Split FILE[:FUNCTION]."""
    path, colon, function = pipeline.rpartition(":")
    if colon and function.isidentifier() and not Path(pipeline).exists():
        return Path(path), function
    return Path(pipeline), "make_pipeline"


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
    if not metrics["candidate"]:
        return f"{name}: gate {outcome.gate}, {state}; {metrics['chosen']}, not measured"
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
