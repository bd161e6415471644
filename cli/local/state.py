"""The state folder of a one-machine installation.

    $TOLLGATE_HOME/
    ├── credentials.json     generated credentials of this installation, mode 0600
    ├── up.lock              locked by a running `tollgate up`
    ├── prepared             digest of what was prepared, so that the next start can skip it
    ├── auth.db, billing.db  the databases, unless configured elsewhere
    ├── journal/             usage that billing has not acknowledged yet
    ├── keys/                the trainer's key, the trusted keys, auth's own keys if you add any
    ├── data/<model>/        the data store
    └── models/<model>/      the model store

It contains no ports and no paths, so it can be moved.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registry.storage.local import create_file


class StateError(Exception):
    """The state folder cannot be used; the message is a sentence that says why."""


class InUse(StateError):
    """Another `tollgate up` is using this state folder."""


@contextmanager
def opened(home: Path) -> Iterator[None]:
    """Create the state folder and lock it for the duration of the block.

    The kernel releases the lock when the process ends for any reason.

    Raises:
        StateError: the folder cannot be created or written.
        InUse: another process has locked it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"TOLLGATE_HOME: cannot write to {home}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InUse(f"another `tollgate up` is already using {home}") from error
    finally:
        os.close(lock)


def credentials(home: Path) -> dict[str, Any]:
    """Return the credentials of this installation; the first call generates them.

    Returns:
        `{"admin": {"email", "password"}, "demo": {"email", "password"},
        "services": {"inference": {"client_id", "client_secret"}}}`

    Raises:
        StateError: the file cannot be created or read.
    """
    path = home / "credentials.json"
    try:
        if not path.exists():
            content = json.dumps(_new_credentials(), indent=2) + "\n"
            create_file(path, content.encode(), mode=0o600)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return {name: found[name] for name in ("admin", "demo", "services")}
    except OSError as error:
        raise StateError(f"TOLLGATE_HOME: cannot use {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"TOLLGATE_HOME: {path} is damaged; move it away to generate a new one"
        ) from error


def _new_credentials() -> dict[str, Any]:
    def account(name: str) -> dict[str, str]:
        return {"email": f"{name}@tollgate.example", "password": secrets.token_urlsafe(24)}

    return {
        "admin": account("admin"),
        "demo": account("demo"),
        "services": {
            "inference": {"client_id": "inference", "client_secret": secrets.token_urlsafe(32)}
        },
    }
