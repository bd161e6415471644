"""The TypeScript client is generated, compiled with strict types, and calls the real services."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.accounts import new_account
from harness.platform import Platform
from harness.programs import ROOT, find_program
from harness.samples import WINE

CALL = Path(__file__).with_name("call.ts")


@pytest.mark.slow  # npm installs a compiler
def test_it_is_compiled_and_calls_a_service(platform: Platform, tmp_path: Path) -> None:
    node = find_program("node")
    find_program("npm")
    folder = tmp_path / "client"
    (folder / "src").mkdir(parents=True)
    shutil.copy(CALL, folder / "src")
    account = new_account(platform)
    with platform.client("auth", account.token) as auth:
        key = auth.post("/api-keys", json={"name": "x"}).raise_for_status().json()["key"]

    script = [sys.executable, str(ROOT / "scripts" / "client_typescript.py"), str(folder)]
    compiled = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert compiled.returncode == 0, compiled.stderr
    command = [node, str(folder / "dist" / "call.js"), key, platform.urls["auth"], json.dumps(WINE)]
    called = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert called.returncode == 0, called.stderr
    answer = json.loads(called.stdout)
    assert answer["amount"].endswith(" USD")
    assert (answer["predictions"], answer["account"], answer["missing"]) == ([0], account.id, 404)
