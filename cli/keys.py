"""`tollgate keys`: the signing key for new versions, and the trusted keys."""

from pathlib import Path
from typing import Any

import typer

from cli.options import AsJson
from cli.output import print_json, print_table
from cli.stores import failures_as_one_line, load_settings
from registry.keys import KeyFile, create_signing_key, list_keys, rotate_signing_key
from registry.records import StoreError


def create(as_json: AsJson = False) -> None:
    """Create the signing key if it does not exist, and trust its public key."""
    with failures_as_one_line():
        private, trusted = _places()
        made = not private.exists()
        create_signing_key(private, trusted)
        [signing] = [key for key in list_keys(private, trusted) if key.signs]
    if as_json:
        print_json(_as_document(signing) | {"made": made})
    else:
        typer.echo(f"{signing.id} {'created' if made else 'already exists'}; it signs new versions")


def rotate(as_json: AsJson = False) -> None:
    """Replace the signing key; versions signed by older keys stay trusted."""
    with failures_as_one_line():
        private, trusted = _places()
        old, new = rotate_signing_key(private, trusted)
    if as_json:
        print_json({"old": old, "new": new})
        return
    typer.echo(f"{new} signs new versions; {old} stays trusted")
    typer.echo(f"to retire {old} and refuse every version it signed: rm {trusted / old}.pem")


def list_all(as_json: AsJson = False) -> None:
    """List the trusted keys, oldest first, and mark the signing key.

    To retire a key, delete its file.
    """
    with failures_as_one_line():
        found = list_keys(*_places())
    if as_json:
        print_json([_as_document(key) for key in found])
        return
    if not found:
        typer.echo("No keys yet; create one with: tollgate keys create")
    print_table(
        [
            (key.id, f"{key.created:%Y-%m-%d %H:%M:%SZ}", str(key.file), "signs" * key.signs)
            for key in found
        ]
    )


def _places() -> tuple[Path, Path]:
    """Return the paths of the private key and of the folder of trusted keys.

    Raises:
        StoreError: TRAINER_TRUSTED_KEYS is needed but missing, or is not a folder.
    """
    settings = load_settings()
    trusted = settings.trusted_keys or settings.trusted_dir
    if trusted.is_file():
        raise StoreError("TRAINER_TRUSTED_KEYS must be a folder, not a file.")
    if settings.signing_key and not settings.trusted_keys:
        raise StoreError("TRAINER_SIGNING_KEY requires TRAINER_TRUSTED_KEYS to be a folder.")
    return settings.signing_key_file, trusted


def _as_document(key: KeyFile) -> dict[str, Any]:
    return {
        "id": key.id,
        "file": str(key.file),
        "created": key.created.isoformat(),
        "signs": key.signs,
    }
