"""An MCP client that runs `tollgate mcp` pays for its predictions like anyone else."""

import json
import subprocess
import sys
from typing import Any

import pytest

from harness.platform import Platform
from harness.programs import ROOT
from harness.samples import WINE
from harness.waiting import DEADLINE_S, eventually


@pytest.mark.costly
def test_a_call_of_a_tool_is_billed_like_a_prediction(platform: Platform) -> None:
    token = platform.new_token()
    with platform.client("auth", token) as auth:
        key = auth.post("/api-keys", json={"name": "agent"}).json()["key"]
    before = platform.usage(token)
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    ]
    call = {"name": "wine", "arguments": {"instances": [WINE, WINE]}}
    messages.append({"id": 3, "method": "tools/call", "params": call})

    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "mcp"],
        cwd=ROOT,
        env=platform.environment | {"TOLLGATE_API_KEY": key},
        input="".join(json.dumps({"jsonrpc": "2.0", **each}) + "\n" for each in messages),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    answers = {each["id"]: each["result"] for each in map(json.loads, ended.stdout.splitlines())}
    assert answers[1]["protocolVersion"] == "2025-06-18"
    assert "wine" in [tool["name"] for tool in answers[2]["tools"]]
    content = answers[3]["structuredContent"]
    assert content["predictions"] == [0, 0]
    assert before["requests"] == 0
    eventually(lambda: platform.usage(token)["requests"] == 1)
    after = platform.usage(token)
    assert after["rows"] == 2
    assert (after["amount"], after["currency"]) == (
        content["receipt"]["amount"],
        content["receipt"]["currency"],
    )
    assert key not in ended.stdout
