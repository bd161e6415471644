"""The client as a package of its own: its wheel, and the oldest versions that it runs on."""

import json
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from email.parser import HeaderParser
from pathlib import Path

import pytest

from harness.http_servers import Request, Response, serving
from harness.programs import ROOT
from tollgate_client import __version__

CLIENT = ROOT / "clients" / "python"
SOURCES = CLIENT / "tollgate_client"
FILES = ("pyproject.toml", "README.md", "LICENSE")
UV = str(Path(sys.executable).with_name("uv"))
RECEIPT = {
    "X-Usage-Event": "e1",
    "X-Usage-Amount": "0.0007 USD",
    "X-Model-Name": "wine",
    "X-Model-Version": "v1",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built offline from a copy of its sources."""
    folder = tmp_path_factory.mktemp("client")
    sources = folder / "sources"
    for file in [*(CLIENT / name for name in FILES), *SOURCES.glob("*.*")]:
        copy = sources / file.relative_to(CLIENT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(folder)!r})"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=sources, check=True, capture_output=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.costly
def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        [metadata] = [name for name in names if name.endswith("/METADATA")]
        described = HeaderParser().parsestr(files.read(metadata).decode())

    outside = {name for name in names if ".dist-info/" not in name}
    assert outside == {f"tollgate_client/{file.name}" for file in SOURCES.glob("*.*")}
    assert "tollgate_client/py.typed" in outside
    assert described["Name"] == "tollgate-client"
    assert described["Version"] == __version__
    assert described["Requires-Python"] == ">=3.9"
    required = [each for each in described.get_all("Requires-Dist", []) if "extra" not in each]
    assert [re.split(r"[<>=]", each)[0] for each in required] == ["httpx", "pydantic"]


def find_oldest_python() -> str:
    """Return an installed Python 3.9, or the name by which uv downloads one."""
    installed = [*Path.home().glob(".pyenv/versions/3.9.*/bin/python"), Path("python3.9")]
    for python in installed:
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "--version"], check=True, capture_output=True, timeout=60)
            return str(python)
    return "3.9"


@pytest.mark.slow  # an environment with the oldest supported versions is installed
def test_it_runs_on_the_oldest_supported_python_and_libraries(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    for command in (
        ["venv", "--quiet", "--python", find_oldest_python(), str(environment)],
        ["pip", "install", "--quiet", "--resolution", "lowest-direct", str(wheel)],
    ):
        where = ["--python", str(environment)] if command[0] == "pip" else []
        subprocess.run([UV, *command, *where], check=True, timeout=300)

    def answer(request: Request) -> Response:
        if request.method == "GET":
            return Response(404)
        explanation = {"base": 0.5, "contributions": {"a": 0.1}, "approximate": False}
        document: dict[str, object] = {"predictions": [0, "x"]}
        if request.path.endswith(":explain"):
            document["explanations"] = [explanation] * 2
        return Response(200, json.dumps(document).encode(), RECEIPT)

    with serving(answer) as url:
        script = Path(__file__).with_name("old_python.py")
        python = environment / "bin" / "python"
        done = subprocess.run(
            [python, "-W", "error", script, url], capture_output=True, text=True, timeout=120
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "[0, 'x'] 2 [{'loc': ['instances', 0, 0], 'msg': 'Must be finite.'}] [0, 'x', '0.0007']"
    )
