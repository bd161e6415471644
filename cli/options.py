"""Arguments and options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Version = Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Which version.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Urls = Annotated[
    list[str] | None, typer.Option("--url", help="An inference process; may be repeated.")
]
Release = Annotated[
    bool, typer.Option("--release", help="Put the version live if it passes its gate.")
]
ReleaseReason = Annotated[str, typer.Option(help="Why to release or force, for the record.")]
Force = Annotated[
    bool, typer.Option("--force", help="Pass the gate regardless; requires --reason.")
]
AllowSignatureChange = Annotated[
    bool,
    typer.Option(
        "--allow-signature-change",
        help="Allow columns, classes, target or task to differ from the last version.",
    ),
]
HelmRelease = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Query from inside the cluster, with a Job of this Helm release."
    ),
]
Namespace = Annotated[str, typer.Option(help="Namespace of the pods.")]
Withdraw = Annotated[bool, typer.Option("--withdraw", help="Roll the release back if it is bad.")]


def require_reason(*, force: bool, reason: str) -> None:
    """Check that an override of the gate has a reason.

    Raises:
        BadParameter: it has none.
    """
    if force and not reason.strip():
        raise typer.BadParameter("--force requires --reason")
