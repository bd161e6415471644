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
HelmRelease = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Query from inside the cluster, with a Job of this Helm release."
    ),
]
Namespace = Annotated[str, typer.Option(help="Namespace of the pods.")]
Withdraw = Annotated[bool, typer.Option("--withdraw", help="Roll the release back if it is bad.")]
