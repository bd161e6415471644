"""`tollgate models import`: publish a finished model of another tool as a version."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import (
    AllowSignatureChange,
    AsJson,
    Force,
    Model,
    Release,
    ReleaseReason,
    require_reason,
)
from cli.output import progress
from cli.stores import failures_as_one_line
from cli.supervised import SupervisedError, run_supervised
from cli.train import faults_as_one_line, print_outcome

IMPORT_TIMEOUT_S = 3600.0


def import_model(
    model: Model,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A model file (joblib, skops, ONNX, LightGBM text, XGBoost JSON or UBJ), or an "
            "MLflow model folder.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column it predicts; default: from dataset.json, else the last version's.",
        ),
    ] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option("--trust-pickle", help="Open a pickle, which executes code of its author."),
    ] = False,
    release: Release = False,
    reason: ReleaseReason = "",
    force: Force = False,
    allow_signature_change: AllowSignatureChange = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long the model's code may run.", min=0.1),
    ] = IMPORT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Import a finished model as a new, signed version of MODEL.

    The model's data folder provides the held-out rows for the gate. Without data, the gate cannot
    judge the model and fails, unless it is forced. The exit code is 1 if the gate fails, or if
    inference would refuse the release.
    """
    require_reason(force=force, reason=reason)
    from trainer.errors import TrainerError
    from trainer.settings import TrainerSettings

    with (
        faults_as_one_line(),
        failures_as_one_line(TrainerError, SupervisedError),
        progress(first_shown=0.1) as report,
    ):
        outcome = run_supervised(
            "trainer.import_model:import_model",
            code=path.resolve().name,
            timeout_s=timeout,
            report_progress=report,
            settings=TrainerSettings.load(),
            model=model,
            path=path,
            target=target,
            trust_pickle=trust_pickle,
            release=release,
            reason=reason,
            force=force,
            allow_signature_change=allow_signature_change,
        )
    print_outcome(outcome, as_json=as_json)
