"""The functions' own surroundings serve here too."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.functions.conftest import bundles, world

__all__ = ["bundles", "checks_releases", "world"]

checks_releases = pytest.mark.skipif(
    CliRunner().invoke(app, ["models", "check", "--help"]).exit_code != 0,
    reason="deploy.yml needs `tollgate models check`",
)
