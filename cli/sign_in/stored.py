"""The tokens of a person on this machine, in the system's folder for configuration."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from cli.sign_in.device import Tokens


def tokens_path() -> Path:
    """Return the file with the tokens; only its owner may read it."""
    return Path(typer.get_app_dir("tollgate")) / "tokens.json"


@contextmanager
def locked() -> Iterator[None]:
    """Keep other commands from using a refresh token that this one is about to use up.

    Raises:
        OSError: the folder cannot be written.
    """
    path = tokens_path().with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load(issuer: str) -> Tokens | None:
    """Return the tokens for an issuer; None if nobody is signed in there.

    Raises:
        OSError: the file cannot be read.
    """
    document = _read().get(issuer)
    try:
        return None if document is None else Tokens(**document)
    except TypeError:  # another version wrote it
        return None


def save(issuer: str, tokens: Tokens | None) -> None:
    """Store the tokens for an issuer, or forget them; complete, or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    documents = _read()
    documents.pop(issuer, None)
    if tokens is not None:
        documents[issuer] = asdict(tokens)
    path = tokens_path()
    draft = path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(documents, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read() -> dict[str, dict[str, Any]]:
    try:
        documents = json.loads(tokens_path().read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return documents if isinstance(documents, dict) else {}
