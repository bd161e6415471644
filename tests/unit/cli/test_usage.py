"""`tollgate usage` draws a month of usage that billing's API returns."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.usage import BAR_CHARS, draw_days
from harness.http_servers import Request, Response, serving

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
DAYS = [
    {"key": "2026-10-02", "requests": 2000, "rows": 2000, "amount": "1.2"},
    {"key": "2026-10-31", "requests": 1, "rows": 3, "amount": "0.0008"},
]
TOTAL = {"requests": 2001, "rows": 2003, "amount": "1.2008", "currency": "USD"}
TEAMS = [
    {"key": "a", "requests": 2000, "rows": 2000, "amount": "1.2"},
    {"key": None, "requests": 1, "rows": 3, "amount": "0.0008"},
]


class Billing:
    """Answers `/usage`, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.refusal: Response | None = None

    def answer(self, request: Request) -> Response:
        self.asked.append(request)
        if request.path != "/usage":
            return Response(404)
        if self.refusal is not None:
            return self.refusal
        buckets = DAYS if request.query["group_by"] == "day" else TEAMS
        return document({"total": TOTAL, "buckets": buckets})


def document(content: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def billing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Billing]:
    billing = Billing()
    with serving(billing.answer) as url:
        monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
        monkeypatch.setenv("TOLLGATE_URL", url)
        monkeypatch.setenv("TOLLGATE_API_KEY", "tg_live_x")
        yield billing


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["usage", *arguments])
    return result.exit_code, result.stdout, result.stderr


class TestDrawing:
    def test_the_busiest_day_has_the_longest_bar_and_any_usage_has_one(self) -> None:
        lines = draw_days(DAYS, since=OCTOBER, until=NOVEMBER, block="#")

        assert len(lines) == 31
        assert lines[0] == ("Thu 01", " " * BAR_CHARS, "0", "0")
        assert lines[1] == ("Fri 02", "#" * BAR_CHARS, "2,000", "1.2")
        assert lines[30][1] == "#" + " " * (BAR_CHARS - 1)

    def test_days_to_come_are_left_out(self) -> None:
        noon = datetime(2026, 10, 3, 12, tzinfo=UTC)

        assert len(draw_days([], since=OCTOBER, until=noon, block="#")) == 3


class TestCommand:
    def test_a_month_is_drawn_with_its_total_and_groups(self, billing: Billing) -> None:
        code, stdout, _ = run("2026-10", "--by", "tag:team")

        assert code == 0
        assert stdout.startswith("2026-10: 2,001 requests, 2,003 rows, 1.2008 USD\n")
        assert "Fri 02" in stdout
        assert stdout.splitlines()[-3:] == [
            "tag:team  requests  rows   amount",
            "a         2,000     2,000  1.2",
            "-         1         3      0.0008",
        ]
        asked = [request for request in billing.asked if request.path == "/usage"]
        assert [each.query["group_by"] for each in asked] == ["day", "tag:team"]
        assert asked[0].query["from"] == "2026-10-01T00:00:00+00:00"
        assert asked[0].query["to"] == "2026-11-01T00:00:00+00:00"
        assert asked[0].headers["x-api-key"] == "tg_live_x"

    def test_a_year_ends_in_january(self, billing: Billing) -> None:
        run("2026-12")

        assert billing.asked[-1].query["to"] == "2027-01-01T00:00:00+00:00"

    @pytest.mark.usefixtures("billing")
    def test_json_has_the_same_numbers(self) -> None:
        code, stdout, _ = run("2026-10", "--by", "tag:team", "--json")

        assert code == 0
        assert json.loads(stdout) == {"total": TOTAL, "days": DAYS, "tag:team": TEAMS}

    def test_a_refusal_is_one_line(self, billing: Billing) -> None:
        billing.refusal = document(
            {"detail": "Request validation failed.", "errors": [{"msg": "Too many."}]}, 422
        )

        code, _, stderr = run("2026-10", "--by", "week")

        assert (code, stderr) == (1, "error: Request validation failed. Too many.\n")

    def test_an_answer_that_is_no_problem_document_is_one_line(self, billing: Billing) -> None:
        billing.refusal = Response(502, b"<html>")

        assert run()[2] == "error: billing answered 502\n"

    def test_another_service_may_name_billing(
        self, billing: Billing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(billing.answer) as url:

            def discover(request: Request) -> Response:
                return document({"billing": url})

            with serving(discover) as inference:
                monkeypatch.setenv("TOLLGATE_URL", inference)

                code, _, _ = run("2026-10")

        assert code == 0

    @pytest.mark.usefixtures("billing")
    @pytest.mark.parametrize("month", ["2026", "october", "2026-13", "0000-01", "9999-12"])
    def test_another_month_is_refused(self, month: str) -> None:
        assert run(month)[0] == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "TOLLGATE_API_KEY"),
        ({"TOLLGATE_URL": "http://127.0.0.1:1"}, "TOLLGATE_API_KEY"),
        ({"TOLLGATE_URL": "http://127.0.0.1:1", "TOLLGATE_API_KEY": "x"}, "cannot be reached"),
    ],
)
def test_without_a_connection_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], expected: str
) -> None:
    for name, value in ({"TOLLGATE_HOME": str(tmp_path)} | settings).items():
        monkeypatch.setenv(name, value)

    code, _, stderr = run()

    assert code == 1
    assert expected in stderr


def test_the_local_demo_user_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = {"email": "demo@tollgate.example", "password": "secret"}
    (tmp_path / "credentials.json").write_text(
        json.dumps({"admin": demo, "demo": demo, "services": {}})
    )
    billing = Billing()

    def grant(_: Request) -> Response:
        return document({"access_token": "t"})

    with serving(billing.answer) as billing_url, serving(grant) as auth_url:
        monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
        monkeypatch.setenv("BILLING_PORT", billing_url.rpartition(":")[2])
        monkeypatch.setenv("AUTH_PORT", auth_url.rpartition(":")[2])

        code, _, _ = run("2026-10")

    assert code == 0
    assert billing.asked[0].headers["authorization"] == "Bearer t"
