"""The models as tools over HTTP: each call is a prediction, with all its rules."""

import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from services.inference.app import MAX_OTHER_BODY_BYTES
from services.inference.mcp.messages import INVALID_PARAMS, METHOD_NOT_FOUND, VERSIONS
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import CARD, MIXED_ROW

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
PROBLEM = "urn:tollgate:problem:"


@pytest.fixture
def key(neighbours: Neighbours, account: str) -> str:
    return neighbours.new_key(account=account)


@pytest.fixture
def agent(client: httpx.AsyncClient, key: str) -> "Agent":
    return Agent(client, key)


class Agent:
    """An MCP client that sends whatever a test wants."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http = http
        self.key = key

    async def post(self, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """Send a body."""
        headers = {"X-API-Key": self.key} | (headers or {})
        return await self.http.post("/mcp", json=content, headers=headers)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request; return the answer to it."""
        request = {"jsonrpc": "2.0", "id": "7", "method": method, "params": params}
        response = await self.post(request)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert (answer.pop("jsonrpc"), answer.pop("id")) == ("2.0", "7")
        return answer

    async def tools(self) -> dict[str, dict[str, Any]]:
        """Return the tools by name."""
        listed = (await self.ask("tools/list"))["result"]["tools"]
        return {tool["name"]: tool for tool in listed}

    async def call(
        self, name: str, arguments: Any, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Call a tool; return its result."""
        params = {"name": name, "arguments": arguments}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        response = await self.post(request, headers)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()["result"]
        return result

    async def failure(self, name: str, arguments: Any) -> str:
        """Call a tool that fails; return why."""
        result = await self.call(name, arguments)
        assert result["isError"] is True
        assert "structuredContent" not in result
        text: str = result["content"][0]["text"]
        return text


class TestTools:
    async def test_each_model_is_one(self, agent: Agent) -> None:
        tools = await agent.tools()

        assert list(tools) == ["mixed", "numbers", "price"]
        assert tools["mixed"]["title"] == CARD["title"]
        assert str(CARD["summary"]) in tools["mixed"]["description"]
        assert all("billed" in tool["description"] for tool in tools.values())

    async def test_their_schemas_are_those_of_the_signature(self, agent: Agent) -> None:
        tools = await agent.tools()

        for tool in tools.values():
            for schema in (tool["inputSchema"], tool["outputSchema"]):
                jsonschema.Draft202012Validator.check_schema(schema)
                assert schema["type"] == "object"
        row = tools["mixed"]["inputSchema"]["properties"]["instances"]["items"]
        types = {name: column["type"][0] for name, column in row["properties"].items()}
        assert types == {"size": "number", "colour": "string", "sold": "boolean"}
        options = tools["price"]["inputSchema"]["properties"]["parameters"]["properties"]
        assert "probabilities" not in options

    async def test_a_key_for_some_models_sees_only_those(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        limited = Agent(client, neighbours.new_key(account=account, models=["price"]))

        assert list(await limited.tools()) == ["price"]
        assert "model_not_allowed" in await limited.failure("numbers", {"instances": [ROW]})

    async def test_an_unknown_cursor_is_refused(self, agent: Agent) -> None:
        answer = await agent.ask("tools/list", cursor="x")

        assert answer["error"]["code"] == INVALID_PARAMS


class TestCalls:
    @pytest.mark.parametrize(
        ("model", "arguments"),
        [
            ("numbers", {"instances": [ROW, {**ROW, "a": None}]}),
            ("numbers", {"instances": [ROW], "parameters": {"probabilities": True}}),
            ("numbers", {"instances": [ROW], "parameters": {"intervals": 0.8}}),
            ("mixed", {"instances": [MIXED_ROW]}),
            ("price", {"instances": [{"a": 1, "b": 2}], "parameters": {"intervals": 0.8}}),
        ],
    )
    async def test_answer_as_v1_does_and_as_their_schemas_say(
        self, agent: Agent, model: str, arguments: dict[str, Any]
    ) -> None:
        tool = (await agent.tools())[model]

        result = await agent.call(model, arguments)
        by_v1 = await agent.http.post(
            f"/v1/models/{model}:predict", json=arguments, headers={"X-API-Key": agent.key}
        )

        content = result["structuredContent"]
        jsonschema.validate(arguments, tool["inputSchema"])
        jsonschema.validate(content, tool["outputSchema"])
        assert result["isError"] is False
        assert httpx.Response(200, text=result["content"][0]["text"]).json() == content
        assert {k: v for k, v in content.items() if k != "receipt"} == by_v1.json()

    async def test_are_billed_once_each_to_the_account_of_the_key(
        self, agent: Agent, neighbours: Neighbours, account: str
    ) -> None:
        assert neighbours.charged_to(account) == []

        results = [await agent.call("numbers", {"instances": [ROW, ROW]}) for _ in range(3)]

        receipts = [result["structuredContent"]["receipt"] for result in results]
        ids = [receipt["event_id"] for receipt in receipts]
        await eventually(lambda: sorted(neighbours.charged_to(account)) == sorted(ids))
        assert {(each["amount"], each["currency"]) for each in receipts} == {("0.0007", "USD")}
        data = neighbours.charged[ids[0]]["data"]
        assert (data["model"], data["rows"]) == ("numbers", 2)
        assert data["version"] == receipts[0]["version"]
        assert data["api_key"] == neighbours.api_keys[agent.key]["client_id"]

    async def test_a_repeat_under_one_key_is_billed_once_here_and_in_v1(
        self, agent: Agent, neighbours: Neighbours, account: str
    ) -> None:
        once, arguments = {"Idempotency-Key": "k-1"}, {"instances": [ROW]}

        first = await agent.call("numbers", arguments, once)
        again = await agent.call("numbers", arguments, once)
        by_v1 = await agent.http.post(
            "/v1/models/numbers:predict", json=arguments, headers={"X-API-Key": agent.key} | once
        )
        other = await agent.call("numbers", {"instances": [ROW, ROW]}, once)

        event = first["structuredContent"]["receipt"]["event_id"]
        assert again["structuredContent"] == first["structuredContent"]
        assert by_v1.headers["X-Usage-Event"] == event
        both = {event, other["structuredContent"]["receipt"]["event_id"]}
        await eventually(lambda: set(neighbours.charged_to(account)) == both)

    async def test_of_a_test_key_cost_nothing(
        self, client: httpx.AsyncClient, neighbours: Neighbours, account: str
    ) -> None:
        testing = Agent(client, neighbours.new_key(account=account, mode="test"))

        result = await testing.call("numbers", {"instances": [ROW]})

        assert result["structuredContent"]["receipt"]["amount"] == "0"
        assert neighbours.charged_to(account) == []

    async def test_carry_tags(self, agent: Agent, neighbours: Neighbours) -> None:
        result = await agent.call("numbers", {"instances": [ROW]}, {"X-Tags": "team=a"})

        event = result["structuredContent"]["receipt"]["event_id"]
        await eventually(lambda: event in neighbours.charged)
        assert neighbours.charged[event]["data"]["tags"] == {"team": "a"}


class TestFailures:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "instances"),
            ({"instances": [{"a": "x", "b": 1, "c": 2}]}, "a"),
            ({"instances": [{"a": 1}]}, "b"),
            ({"instances": [ROW], "parameters": {"probabilities": 1}}, "probabilities"),
            ({"rows": [ROW]}, "rows"),
        ],
    )
    async def test_bad_input_is_explained_to_the_model_and_free(
        self,
        agent: Agent,
        neighbours: Neighbours,
        account: str,
        arguments: dict[str, Any],
        words: str,
    ) -> None:
        text = await agent.failure("numbers", arguments)

        assert words in text
        assert f"(problem type: {PROBLEM}invalid_input)" in text
        assert neighbours.charged_to(account) == []

    async def test_no_credit_is_explained(self, agent: Agent, neighbours: Neighbours) -> None:
        neighbours.status = "no_credit"

        text = await agent.failure("numbers", {"instances": [ROW]})

        assert f"(problem type: {PROBLEM}" in text
        assert "credit" in text

    async def test_the_rate_limit_counts_calls_and_says_when_to_retry(
        self, agent: Agent, neighbours: Neighbours
    ) -> None:
        neighbours.rate_limit = {"per_second": 0.1, "burst": 2}

        results = [await agent.call("numbers", {"instances": [ROW]}) for _ in range(3)]

        assert [each["isError"] for each in results] == [False, False, True]
        text = results[2]["content"][0]["text"]
        assert re.search(r"Retry after \d+ s\. \(problem type: \S+:rate_limited\)$", text)

    async def test_an_unknown_model_is_an_unknown_tool(self, agent: Agent) -> None:
        for name in ("wines", "", "a/b", "numbers:predict", "../numbers"):
            answer = await agent.ask("tools/call", name=name, arguments={"instances": [ROW]})

            assert answer["error"]["code"] == INVALID_PARAMS

    @pytest.mark.parametrize("params", [{}, {"name": 1}, {"name": "numbers", "arguments": []}])
    async def test_parameters_of_the_wrong_type_are_refused(
        self, agent: Agent, params: dict[str, Any]
    ) -> None:
        answer = await agent.ask("tools/call", **params)

        assert answer["error"]["code"] == INVALID_PARAMS

    async def test_no_answer_contains_the_key(self, agent: Agent) -> None:
        requests: list[dict[str, Any]] = [
            {"method": "initialize"},
            {"method": "tools/list"},
            {"method": "tools/call", "params": {"name": "numbers", "arguments": {}}},
            {
                "method": "tools/call",
                "params": {"name": "numbers", "arguments": {"instances": [ROW]}},
            },
            {"method": "tools/call", "params": {"name": "nothing"}},
            {"method": "nothing"},
        ]

        answers = [await agent.post({"jsonrpc": "2.0", "id": 1, **each}) for each in requests]

        assert not [each for each in answers if agent.key in f"{each.headers}{each.text}"]


class TestProtocol:
    @pytest.mark.parametrize("version", VERSIONS)
    async def test_a_session_begins_with_the_requested_revision(
        self, agent: Agent, version: str
    ) -> None:
        result = (await agent.ask("initialize", protocolVersion=version))["result"]
        begun = await agent.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

        assert result["protocolVersion"] == version
        assert list(result["capabilities"]) == ["tools"]
        assert result["serverInfo"]["name"] == "tollgate"
        assert (begun.status_code, begun.content) == (202, b"")
        assert "mcp-session-id" not in begun.headers

    async def test_ping_is_answered(self, agent: Agent) -> None:
        assert (await agent.ask("ping"))["result"] == {}

    async def test_an_unknown_method_is_refused(self, agent: Agent) -> None:
        answer = await agent.ask("resources/list")

        assert answer["error"]["code"] == METHOD_NOT_FOUND

    @pytest.mark.parametrize("version", VERSIONS)
    async def test_a_supported_revision_in_the_header_is_accepted(
        self, agent: Agent, version: str
    ) -> None:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}

        accepted = await agent.post(ping, {"MCP-Protocol-Version": version})
        refused = await agent.post(ping, {"MCP-Protocol-Version": "2024-01-01"})

        assert accepted.status_code == 200
        assert refused.status_code == 400
        assert VERSIONS[0] in refused.json()["error"]["message"]

    async def test_a_body_that_is_no_message_is_400(self, agent: Agent) -> None:
        response = await agent.post([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])

        assert response.status_code == 400
        assert response.json()["id"] is None

    async def test_pages_of_other_origins_are_refused(self, agent: Agent) -> None:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}

        response = await agent.post(ping, {"Origin": "https://evil.example"})

        assert response.status_code == 403
        assert response.json()["type"] == f"{PROBLEM}origin_not_allowed"

    async def test_pages_of_configured_origins_may_call(
        self, settings: InferenceSettings, tmp_path: Path, key: str
    ) -> None:
        page = "https://page.example"
        changes = {"cors_origins": (page,), "journal_dir": tmp_path / "journal"}
        asked = "X-API-Key, MCP-Protocol-Version, Content-Type"

        async with serving(settings.model_copy(update=changes)) as http:
            preflight = await http.options(
                "/mcp",
                headers={
                    "Origin": page,
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": asked,
                },
            )
            answer = await Agent(http, key).post(
                {"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"Origin": page}
            )

        assert preflight.status_code == answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == page

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    async def test_there_is_no_stream_and_no_session(self, agent: Agent, method: str) -> None:
        response = await agent.http.request(method, "/mcp", headers={"X-API-Key": agent.key})

        assert response.status_code == 405
        assert "POST" in response.headers["allow"]

    async def test_without_a_valid_key_it_is_401_with_a_challenge(
        self, client: httpx.AsyncClient
    ) -> None:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}

        for headers in ({}, {"X-API-Key": "tg_live_x"}):
            response = await client.post("/mcp", json=ping, headers=headers)

            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")

    async def test_a_body_over_the_limit_is_413(self, agent: Agent) -> None:
        response = await agent.post("x" * MAX_OTHER_BODY_BYTES)

        assert response.status_code == 413
