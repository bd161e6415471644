"""Programs that pip cannot install, and the checkout that they run in."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
SEARCH_PATH = os.pathsep.join(
    [str(ROOT / ".tools/bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
)


class NotInstalled(Exception):
    """A program is missing on this machine; the tests that need it are skipped."""


def find_program(*names: str, advice: str = "") -> str:
    """Return the path of the first of these programs that is installed.

    Args:
        advice: how to install it, for the error's message.

    Raises:
        NotInstalled: no such program is installed.
    """
    for name in names:
        if path := shutil.which(name, path=SEARCH_PATH):
            return path
    missing = f"{' or '.join(names)} is not installed"
    raise NotInstalled(f"{missing}; {advice}" if advice else missing)
