"""The `tollgate` command itself."""

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from cli.main import app
from harness.programs import ROOT

HEAVY = {"fastapi", "fsspec", "numpy", "pandas", "sklearn", "sqlalchemy"}


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    group = CliRunner().invoke(app, ["modles"])
    command = CliRunner().invoke(app, ["models", "relaese"])

    assert "Did you mean 'models'?" in group.stderr
    assert "Did you mean 'release'?" in command.stderr
    assert (group.exit_code, command.exit_code) == (2, 2)


def test_the_version_is_the_distributions() -> None:
    shown = CliRunner().invoke(app, ["--version"])

    assert shown.stdout == f"{version('tollgate')}\n"


@pytest.mark.costly
def test_help_and_the_start_of_up_import_nothing_heavy() -> None:
    script = """
import sys
import cli.local.up
from cli.main import app
from harness.programs import ROOT
app(["--help"], prog_name="tollgate", standalone_mode=False)
print(*sys.modules, file=sys.stderr)
"""

    ran = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)

    assert "Sell a scikit-learn model" in ran.stdout
    assert not HEAVY & set(ran.stderr.split())


@pytest.mark.costly
def test_what_is_logged_does_not_mix_with_what_a_command_prints() -> None:
    command = "from cli.main import _options; import structlog; _options(); print('{}')"
    ended = subprocess.run(
        [sys.executable, "-c", f"{command}; structlog.get_logger().warning('slow')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout == "{}\n"
    assert "slow" in ended.stderr
