"""The official client of the Model Context Protocol, over HTTP and over `tollgate mcp`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from harness.asgi_servers import serving_app
from harness.programs import ROOT
from services.inference.mcp.messages import VERSIONS
from tests.integration.inference.conftest import eventually
from tests.integration.inference.fast import Served
from tests.integration.inference.neighbours import Neighbours

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.fixture
def key(neighbours: Neighbours, account: str) -> str:
    return neighbours.new_key(account=account)


@asynccontextmanager
async def over_http(served: Served, key: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}, trust_env=False, timeout=30) as http,
        Client(
            streamable_http_client(f"http://127.0.0.1:{served.fast}/mcp", http_client=http)
        ) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(served: Served, key: str) -> AsyncIterator[Client]:
    """Run the command beside a service that only names where inference is."""
    app = FastAPI()

    @app.get("/.well-known/tollgate")
    async def discover() -> dict[str, str]:
        return {"inference": f"http://127.0.0.1:{served.fast}/"}

    async with serving_app(app) as url:
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "cli.main", "mcp"],
            env={"TOLLGATE_URL": url, "TOLLGATE_API_KEY": key, "PATH": os.environ["PATH"]},
            cwd=ROOT,
        )
        async with Client(stdio_client(command)) as client:
            yield client


@pytest.mark.costly
@pytest.mark.parametrize("connected", [over_http, over_stdio])
async def test_the_official_client_lists_and_calls_the_models(
    served: Served, neighbours: Neighbours, account: str, key: str, connected: Any
) -> None:
    async with connected(served, key) as client:
        version = client.protocol_version
        tools = (await client.list_tools()).tools
        good = [{"instances": [ROW] * rows} for rows in (1, 2, 3)]
        results = await asyncio.gather(*(client.call_tool("numbers", each) for each in good))
        refused = await client.call_tool("numbers", {"instances": [{**ROW, "a": "x"}]})
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("nothing", {})

    assert version in VERSIONS
    assert [tool.name for tool in tools] == ["mixed", "numbers", "price"]
    # The client has checked the structured content against the output schemas.
    contents = [result.structured_content or {} for result in results]
    assert [len(content["predictions"]) for content in contents] == [1, 2, 3]
    assert refused.is_error
    assert "invalid_input" in str(refused.content)
    billed = {content["receipt"]["event_id"] for content in contents}
    await eventually(lambda: set(neighbours.charged_to(account)) == billed)
