"""The secret that the console's cookies are encrypted with."""

import secrets
from pathlib import Path

from services.common.settings import exit_with_error
from services.console.settings import MIN_SECRET_CHARS, ConsoleSettings


def open_secret(settings: ConsoleSettings) -> str:
    """Return the secret of the settings or, without one, that of the state folder.

    The first call creates it there.

    Raises:
        SystemExit: it is too short, or cannot be stored; one line on stderr says why.
    """
    given = settings.secret.get_secret_value()
    if given:
        if len(given) < MIN_SECRET_CHARS:
            exit_with_error(f"CONSOLE_SECRET: must have at least {MIN_SECRET_CHARS} characters")
        return given
    file = settings.home / "keys" / "console"
    try:
        return _read_or_create(file)
    except OSError as error:
        exit_with_error(f"CONSOLE_SECRET: unset, and {file} is unusable: {error.strerror}")


def _read_or_create(file: Path) -> str:
    """Return the content of a file, which is created with a random secret if it is missing."""
    try:
        secret = file.read_text().strip()
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = secrets.token_urlsafe(48)
        # Complete before it has its name, which only one of several processes can give it.
        new = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
        new.touch(mode=0o600)
        new.write_text(f"{secret}\n")
        try:
            file.hardlink_to(new)
        except FileExistsError:
            secret = file.read_text().strip()
        finally:
            new.unlink()
    if len(secret) < MIN_SECRET_CHARS:
        exit_with_error(f"CONSOLE_SECRET: unset, and {file} is damaged; delete it")
    return secret
