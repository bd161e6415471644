"""`python -m services.inference` with and without gRPC, as a process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.programs import ROOT

pytestmark = pytest.mark.costly


def run(folder: Path, *arguments: str, installed: bool, **environment: str) -> tuple[int, str]:
    """Run Python with or without gRPC's package; return its exit code and output."""
    if not installed:
        (folder / "sitecustomize.py").write_text("import sys; sys.modules['grpc'] = None")
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{folder}:{ROOT}",
        "TOLLGATE_HOME": str(folder),
        "INFERENCE_PORT": "1",  # not allowed, so no process is left over if it gets this far
        "INFERENCE_CLIENT_ID": "inference",
        "INFERENCE_CLIENT_SECRET": "secret",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=given | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        code, output = run(
            tmp_path, "-m", "services.inference", installed=True, INFERENCE_GRPC_PORT=port
        )

    assert code == 2
    assert output == (
        f"error: INFERENCE_GRPC_PORT: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_without_the_package_one_line_reports_it(tmp_path: Path) -> None:
    code, output = run(
        tmp_path, "-m", "services.inference", installed=False, INFERENCE_GRPC_PORT="8012"
    )

    assert code == 2
    assert output == "error: INFERENCE_GRPC_PORT: install tollgate[grpc] to serve gRPC\n"


def test_without_a_port_the_package_is_not_needed(tmp_path: Path) -> None:
    code, output = run(tmp_path, "-c", "import services.inference.app", installed=False)

    assert (code, output) == (0, "")
