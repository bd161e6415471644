"""The `tollgate` command: every command, where its function is, and what it needs."""

from importlib.metadata import version
from typing import Annotated

import typer

from cli.groups import Command, Part, new_group
from cli.output import log_to_stderr

AUTH = Part("the auth service", ("services.auth", "passlib", "sqlalchemy"))
BILLING = Part("the billing service", ("services.billing", "sqlalchemy"))
INFERENCE = Part("the inference service", ("services.inference", "onnxruntime"))
REGISTRY = Part("the model registry", ("registry", "cryptography", "fsspec"))
TRAINER = Part("the trainer", ("trainer", "sklearn", "skl2onnx"))
FUNCTIONS = Part("the code of the functions", ("functions", "jose"))

models = new_group(
    {
        "list": Command("cli.models.inspection:list_models", (REGISTRY,)),
        "show": Command("cli.models.inspection:show", (REGISTRY,)),
        "verify": Command("cli.models.inspection:verify", (REGISTRY,)),
        "release": Command("cli.models.releases:release", (REGISTRY,)),
        "rollback": Command("cli.models.releases:rollback", (REGISTRY,)),
        "canary": Command("cli.models.releases:canary", (REGISTRY,)),
        "shadow": Command("cli.models.releases:shadow", (REGISTRY,)),
        "pin": Command("cli.models.pins:pin", (REGISTRY,)),
        "unpin": Command("cli.models.pins:unpin", (REGISTRY,)),
        "deprecate": Command("cli.models.deprecating:deprecate", (REGISTRY,)),
        "wait": Command("cli.models.deployment:wait", (REGISTRY,)),
        "check": Command("cli.models.checking:check", (REGISTRY,)),
        "import": Command("cli.models.importing:import_model", (REGISTRY, TRAINER)),
        "withdraw": Command("cli.models.deployment:withdraw_release", (REGISTRY,)),
        "report": Command("cli.models.live_report:report", (REGISTRY,)),
        "feedback": Command("cli.models.feedback:feedback", (REGISTRY,)),
    },
    help_text="Import and inspect model versions, and decide which is live.",
)

pipelines = new_group(
    {
        "status": Command("cli.pipelines.status:status", (REGISTRY,)),
        "sweep": Command("cli.pipelines.sweep:sweep", (REGISTRY, FUNCTIONS)),
    },
    help_text="Follow data from the bucket to a served release.",
)

keys = new_group(
    {
        "create": Command("cli.keys:create", (REGISTRY,)),
        "rotate": Command("cli.keys:rotate", (REGISTRY,)),
        "list": Command("cli.keys:list_all", (REGISTRY,)),
    },
    help_text="Manage the keys that sign versions.",
)

users = new_group(
    {
        "create": Command("cli.users:create", (AUTH,)),
        "disable": Command("cli.users:disable", (AUTH,)),
        "enable": Command("cli.users:enable", (AUTH,)),
        "reset-second-factor": Command("cli.users:reset_second_factor", (AUTH,)),
    },
    help_text="Manage users.",
)

auth_keys = new_group(
    {
        "rotate": Command("cli.auth_keys:rotate", (AUTH,)),
        "list": Command("cli.auth_keys:list_all", (AUTH,)),
    },
    help_text="Manage the keys that sign tokens.",
)
auth = new_group({}, help_text="Operate the auth service.")
auth.add_typer(auth_keys, name="keys")

audit = new_group(
    {"verify": Command("cli.audit:verify", (AUTH,))},
    help_text="Verify the log of security events.",
)

billing = new_group(
    {
        "verify": Command("cli.billing.verify:verify", (BILLING,)),
        "archive": Command("cli.billing.archive:archive", (BILLING,)),
        "close": Command("cli.billing.close:close", (BILLING,)),
        "lineage": Command("cli.billing.lineage:lineage", (BILLING, REGISTRY)),
        "recall": Command("cli.billing.recall:recall", (BILLING,)),
        "replay": Command("cli.billing.replay:replay", (INFERENCE,)),
    },
    help_text="Close months, recall versions, verify the books, and deliver leftover usage.",
)

receipts = new_group(
    {"verify": Command("cli.receipts:verify", (BILLING,))},
    help_text="Verify signed receipts.",
)

app = new_group(
    {
        "up": Command("cli.local.up:up", (AUTH, BILLING, INFERENCE, REGISTRY, TRAINER)),
        "usage": Command("cli.usage:usage", ()),
        "mcp": Command("cli.mcp:mcp", ()),
        "train": Command("cli.train:train", (REGISTRY, TRAINER)),
        "login": Command("cli.sign_in.commands:login", ()),
        "logout": Command("cli.sign_in.commands:logout", ()),
        "token": Command("cli.sign_in.commands:token", ()),
    },
    help_text="Sell a scikit-learn model as a metered API.",
)
app.add_typer(models, name="models")
app.add_typer(pipelines, name="pipelines")
app.add_typer(keys, name="keys")
app.add_typer(users, name="users")
app.add_typer(auth, name="auth")
app.add_typer(audit, name="audit")
app.add_typer(billing, name="billing")
app.add_typer(receipts, name="receipts")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("tollgate"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Accept options of `tollgate` itself, and prepare every command."""
    log_to_stderr()


def main() -> None:
    """Run the console script."""
    app(prog_name="tollgate")


if __name__ == "__main__":
    main()
