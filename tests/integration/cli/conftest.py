"""Fixtures for the commands that check releases."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from harness.stores import FIRST, SECOND
from tests.integration.cli.two_releases import Run, signed_store_of
from tests.integration.trainer.conftest import Workshop, new_workshop


@pytest.fixture
def two(tmp_path: Path) -> Workshop:
    """Release two versions; the second is live as release 2."""
    workshop = new_workshop(tmp_path)
    for version in (FIRST, SECOND):
        signed_store_of(workshop).publish(version)
        workshop.release_manager.release("wine", version=version)
    return workshop


@pytest.fixture
def run(two: Workshop, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TOLLGATE_HOME", str(two.home))
    return lambda *words: CliRunner().invoke(app, ["models", *words])
