"""Programs that the tests run and pip cannot install."""

import os
import shutil

import pytest

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    """Return where a program is; without it the test is skipped, loudly, or fails under CI."""
    found = shutil.which(name, path=PATH)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed, and under CI nothing is skipped")
        pytest.skip(f"TESTS SKIPPED: {name} is not installed")
    return found
