"""Real processes through the real entry points."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.platform import Platform, running


@pytest.fixture(scope="package")
def platform(new_home: Callable[[], Path]) -> Iterator[Platform]:
    """A running platform on SQLite, for tests that leave it running."""
    with running(new_home()) as started:
        yield started
