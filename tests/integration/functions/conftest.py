"""The functions as real processes with real servers around them, for one test or for all."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from harness.cloud import Cloud, Function, build_functions, new_cloud
from harness.gcs import Emulator


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the deployed folders of the functions."""
    return build_functions(tmp_path_factory.mktemp("functions"))


@pytest.fixture
def cloud(gcs: Emulator, tmp_path: Path, bundles: Path) -> Iterator[Cloud]:
    """Yield servers for one test, which starts the functions it needs."""
    with new_cloud(gcs, tmp_path, bundles) as new:
        yield new


@pytest.fixture(scope="session")
def shared(
    gcs: Emulator, tmp_path_factory: pytest.TempPathFactory, bundles: Path
) -> Iterator[Cloud]:
    """Yield servers for tests that use their own models and restore all state."""
    with new_cloud(gcs, tmp_path_factory.mktemp("shared"), bundles) as new:
        yield new


@pytest.fixture(scope="session")
def arrivals(shared: Cloud) -> Function:
    """Start on_data_arrival for the whole session."""
    return shared.function()


@pytest.fixture
def model() -> str:
    """Return a unique model name."""
    return f"wine-{uuid4().hex}"
