"""Remember what was prepared, so that a start with nothing new to prepare skips it.

`$TOLLGATE_HOME/prepared` is a digest of everything that preparation depends on or creates. Only an
installation with everything in its state folder has one: what is elsewhere is prepared at each
start. This imports nothing heavy, because it runs before each start.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cli.local import state
from registry.storage.local import replace_file

CODE = Path(__file__).parents[2]
PACKAGES = ("cli", "registry", "services", "trainer")
PREFIXES = ("AUTH_", "BILLING_", "INFERENCE_", "STORAGE_", "TRAINER_", "TOLLGATE_")
WITHOUT_EFFECT = {
    "AUTH_PORT",
    "BILLING_PORT",
    "BILLING_PUBLIC_URL",
    "INFERENCE_PORT",
    "INFERENCE_PUBLIC_URL",
    "TOLLGATE_HOME",
    "TOLLGATE_LOG_FORMAT",
}
"""Settings that no step of the preparation uses."""
ELSEWHERE = {
    "AUTH_DATABASE_URL",
    "BILLING_DATABASE_URL",
    "INFERENCE_MODEL_STORE",
    "INFERENCE_TRUSTED_KEYS",
    "TRAINER_DATA_STORE",
    "TRAINER_MODEL_STORE",
    "TRAINER_SIGNING_KEY",
    "TRAINER_TRUSTED_KEYS",
}
"""Settings that move something that is prepared out of the state folder."""


def is_prepared(home: Path, *, environment: Mapping[str, str]) -> bool:
    """Return whether everything is as the last preparation left it.

    Args:
        environment: of the services.
    """
    try:
        recorded = (home / "prepared").read_text()
    except (OSError, ValueError):
        return False
    return recorded == _describe(home, environment)


def record(home: Path, *, environment: Mapping[str, str]) -> None:
    """Record that everything is prepared now, if that can be checked at the next start.

    Raises:
        OSError: the state folder is not writable.
    """
    described = _describe(home, environment)
    if described is not None:
        replace_file(home / "prepared", described.encode(), mode=0o600)


def _describe(home: Path, environment: Mapping[str, str]) -> str | None:
    """Return a digest of what preparation depends on and creates; None if it is not all here."""
    settings = {
        name: value
        for name, value in environment.items()
        if value and name.startswith(PREFIXES) and name not in WITHOUT_EFFECT
    }
    if ELSEWHERE & settings.keys():
        return None
    try:
        credentials = state.credentials(home)
        facts = [
            settings,
            credentials,
            _databases(home, credentials),
            _keys(home / "keys"),
            _code(),
        ]
        has_sample = (home / "data" / "wine" / "wine.csv").exists()
        has_release = any((home / "models" / "wine" / "releases").iterdir())
    except (OSError, sqlite3.Error):
        return None
    if not (has_sample and has_release):
        return None
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _databases(home: Path, credentials: Mapping[str, Any]) -> list[Any]:
    """Return the revisions of both databases, and what they store of the credentials.

    Raises:
        sqlite3.Error: a database does not exist or is not migrated.
    """
    revision = "SELECT version_num FROM alembic_version"
    user = "SELECT email, password_hash, is_admin, disabled_at FROM users WHERE email = ?"
    client = "SELECT secret_sha256, scope, owner_id, expires_at FROM clients WHERE client_id = ?"
    emails = [credentials[name]["email"] for name in ("admin", "demo")]
    with closing(_open(home / "auth.db")) as auth, closing(_open(home / "billing.db")) as billing:
        return [
            auth.execute(revision).fetchall(),
            [auth.execute(user, [email]).fetchall() for email in emails],
            auth.execute(client, [credentials["services"]["inference"]["client_id"]]).fetchall(),
            billing.execute(revision).fetchall(),
        ]


def _keys(folder: Path) -> list[str]:
    """Return a digest of the signing key, and the names of the trusted keys.

    Raises:
        OSError: a key is missing.
    """
    signing = hashlib.sha256((folder / "signing.pem").read_bytes()).hexdigest()
    return [signing, *sorted(path.name for path in (folder / "trusted").iterdir())]


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)


def _code() -> list[tuple[str, int, int]]:
    """Return the path, size and modification time of each module."""
    found = []
    for package in PACKAGES:
        for folder, _, names in os.walk(CODE / package):
            for name in names:
                if name.endswith(".py"):
                    file = Path(folder, name)
                    status = file.stat()
                    found.append((str(file.relative_to(CODE)), status.st_size, status.st_mtime_ns))
    return sorted(found)
