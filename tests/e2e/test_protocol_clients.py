"""Other projects' clients of the Open Inference Protocol work unchanged, over HTTP and gRPC."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.accounts import new_account, put_on_plan, store_plan
from harness.plans import plan, price
from harness.platform import Platform, running
from harness.ports import free_port
from harness.programs import ROOT
from harness.samples import PREDICT, WINE
from harness.waiting import eventually
from tests.integration.trainer import finished_models

FOLDER = Path(__file__).parent / "protocol_clients"
ENVIRONMENT = ROOT / "build" / "protocol-clients"
UV = str(Path(sys.executable).with_name("uv"))
OTHER = [12.4, 0.9, 1.4, 10.6, 88, 2.0, 0.6, 0.28, 0.4, 1.9, 1.05, 1.8, 520]
ROWS = [WINE, OTHER]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> str:
    """Return the interpreter of an environment with the clients, which is kept for the next run."""
    requirements = FOLDER / "requirements.txt"
    installed = ENVIRONMENT / "requirements.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        for command in (
            ["venv", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
            ["pip", "install", "--python", str(ENVIRONMENT), "--requirement", str(requirements)],
        ):
            subprocess.run([UV, *command, "--quiet"], check=True, timeout=600)
        installed.write_text(requirements.read_text())
    return str(ENVIRONMENT / "bin" / "python")


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def platform(new_home: Callable[[], Path], grpc_port: int) -> Iterator[Platform]:
    with running(new_home(), {"INFERENCE_GRPC_PORT": str(grpc_port)}) as started:
        yield started


@pytest.fixture
def token(platform: Platform) -> str:
    return platform.new_token()


@pytest.fixture
def expected(platform: Platform) -> dict[str, Any]:
    """Return the answer to v1, and the model's columns."""
    with platform.client("inference", platform.new_token()) as inference:
        body = {"instances": ROWS, "parameters": {"probabilities": True}}
        answer: dict[str, Any] = inference.post(PREDICT, json=body).json()
        columns = inference.get("/v1/models/wine").json()["signature"]["columns"]
    return answer | {"columns": [column["name"] for column in columns]}


def run(python: str, script: str, *arguments: str, **given: Any) -> dict[str, Any]:
    """Run a script of the clients' environment; return what it prints."""
    done = subprocess.run(
        [python, str(FOLDER / script), *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def address(platform: Platform, protocol: str, grpc_port: int) -> str:
    return f"127.0.0.1:{platform.ports['inference'] if protocol == 'http' else grpc_port}"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient(
    platform: Platform,
    python: str,
    grpc_port: int,
    token: str,
    expected: dict[str, Any],
    protocol: str,
) -> None:
    at = address(platform, protocol, grpc_port)

    found = run(
        python, "triton.py", protocol, at, token=token, rows=ROWS, columns=expected["columns"]
    )

    assert found["live"] is found["ready"] is True
    assert found["inputs"] == ["features"]
    assert found["predictions"] == found["by_default"] == found["by_column"]
    assert found["predictions"] == expected["predictions"]
    assert found["probabilities"] == expected["probabilities"]
    assert "Model 'wines' not found." in found["error"]


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_client_of_kserve(
    platform: Platform,
    python: str,
    grpc_port: int,
    token: str,
    expected: dict[str, Any],
    protocol: str,
) -> None:
    at = platform.urls["inference"] if protocol == "rest" else f"127.0.0.1:{grpc_port}"

    found = run(python, "kserve_sdk.py", protocol, at, token=token, rows=ROWS)

    assert found["live"] is found["ready"] is True
    assert found["predictions"] == [expected["predictions"]] * 2
    assert found["ids"] == ["mine"] * 2
    assert "The shape must be [-1, 13]" in found["error"]
    assert found.get("v1", expected["predictions"]) == expected["predictions"]
    eventually(lambda: platform.usage(token)["rows"] == len(ROWS) * (3 if "v1" in found else 2))


def test_a_model_that_mlflow_wrote_is_imported_and_sold(
    platform: Platform, python: str, grpc_port: int, tmp_path: Path
) -> None:
    table, name = finished_models.data(), "cellar"
    rows = table[finished_models.NAMES][:2].to_numpy().tolist()
    data = platform.home / "data" / name
    data.mkdir()
    table[[*finished_models.NAMES, "kind"]].to_csv(data / "part.csv", index=False)
    folder = finished_models.write("mlflow sklearn", tmp_path)
    account = new_account(platform)
    prices = (
        price((None, "0.001", "0"), model=name),
        price((None, "0.01", "0"), model="cellar:explain"),
    )
    with platform.client("billing", platform.admin_token()) as billing:
        put_on_plan(billing, account.id, plan_id=store_plan(billing, plan(*prices)))

    words = ("--target", "kind", "--trust-pickle", "--release", "--json")
    imported = platform.run("models", "import", name, str(folder), *words)

    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["gate"] == "passed"
    with (
        platform.client("inference", account.token) as inference,
        platform.client("billing", account.token) as billing,
    ):
        eventually(lambda: inference.get(f"/v2/models/{name}/ready").status_code == 200)
        found = run(
            python,
            "triton.py",
            "http",
            address(platform, "http", grpc_port),
            model=name,
            token=account.token,
            rows=rows,
            columns=finished_models.NAMES,
        )
        explained = inference.post(f"/v1/models/{name}:explain", json={"instances": rows}).json()

        assert found["predictions"] == explained["predictions"] == table["kind"][:2].tolist()
        assert [each["approximate"] for each in explained["explanations"]] == [False, False]
        for each in explained["explanations"]:
            assert list(each["contributions"]) == finished_models.NAMES

        def charges() -> dict[str, Any]:
            usage = billing.get("/usage", params={"group_by": "model"}).json()["buckets"]
            return {each["key"]: (each["requests"], each["amount"]) for each in usage}

        # The journal keeps the order, so the explanation arrives last.
        eventually(lambda: "cellar:explain" in charges())
        predictions, amount = charges()[name]
        assert float(amount) == pytest.approx(0.001 * predictions)
        assert charges() == {name: (predictions, amount), "cellar:explain": (1, "0.01")}
        lines = billing.get("/invoices/preview").json()["lines"]
        assert {line["model"]: line["amount"] for line in lines} == {
            name: amount,
            "cellar:explain": "0.01",
        }
