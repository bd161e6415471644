"""`tollgate keys`: the key that signs new versions, and the keys whose versions are trusted."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.train import failures_as_one_line

if TYPE_CHECKING:
    from services.common.model_keys import KeyFile

keys = typer.Typer(help="Make, rotate and list the keys that versions are signed with.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys.command()
def create(as_json: AsJson = False) -> None:
    """Make the key that signs versions, if there is none; its public half is trusted."""
    from services.common.model_keys import create_signing_key, list_keys

    with failures_as_one_line():
        private, trusted = _places()
        made = not private.exists()
        create_signing_key(private, trusted)
        [signing] = [key for key in list_keys(private, trusted) if key.signs]
    if as_json:
        typer.echo(json.dumps(_as_document(signing) | {"made": made}))
    else:
        typer.echo(f"{signing.id} signs" + ("" if made else ", as before"))


@keys.command()
def rotate(as_json: AsJson = False) -> None:
    """Sign with a new key from now on; what older keys signed stays trusted."""
    from services.common.model_keys import rotate_signing_key

    with failures_as_one_line():
        private, trusted = _places()
        old, new = rotate_signing_key(private, trusted)
    if as_json:
        typer.echo(json.dumps({"old": old, "new": new}))
        return
    typer.echo(f"{new} signs from now on; {old} stays trusted")
    typer.echo(f"to retire it, and refuse every version it signed: rm {trusted / old}.pem")


@keys.command("list")
def list_all(as_json: AsJson = False) -> None:
    """The trusted keys, oldest first, and which of them signs. To retire one, delete its file."""
    from services.common.model_keys import list_keys

    with failures_as_one_line():
        found = list_keys(*_places())
    if as_json:
        typer.echo(json.dumps([_as_document(key) for key in found]))
        return
    if not found:
        typer.echo("There is no key yet: tollgate keys create")
    for key in found:
        mark = "  signs" if key.signs else ""
        typer.echo(f"{key.id}  {key.created:%Y-%m-%d %H:%M:%SZ}  {key.file}{mark}")


def _places() -> tuple[Path, Path]:
    """The private key, and the folder of those that are trusted.

    Raises:
        StoreError: a key is kept elsewhere, but no folder is named for those that are trusted.
    """
    from services.common.model_store import StoreError
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.load()
    trusted = settings.trusted_keys or settings.trusted_dir
    if trusted.is_file():
        raise StoreError("TRAINER_TRUSTED_KEYS has to name a folder, to hold more than one key.")
    if settings.signing_key and not settings.trusted_keys:
        raise StoreError("With TRAINER_SIGNING_KEY, TRAINER_TRUSTED_KEYS has to name a folder.")
    return settings.signing_key_file, trusted


def _as_document(key: "KeyFile") -> dict[str, Any]:
    return {
        "id": key.id,
        "file": str(key.file),
        "created": key.created.isoformat(),
        "signs": key.signs,
    }
