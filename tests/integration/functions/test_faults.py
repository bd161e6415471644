"""Lasting faults are logged as errors at once, with the fix; transient ones are warnings."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from functions.common.github import requested_wait
from harness.cloud import Cloud, Function
from harness.http_servers import Response
from harness.issuer import new_private_key, private_pem

KEY = private_pem(new_private_key())
BUSY = [
    Response(403, headers={"Retry-After": "100"}),
    Response(429),
    Response(403, b'{"message": "You have exceeded a secondary rate limit."}'),
]


def fail_once(function: Function, event: dict[str, Any]) -> dict[str, Any]:
    """Deliver an event that must fail, and return the one line that is logged about it."""
    assert function.post(event) == 500
    [line] = function.lines(event["id"])
    return line


@pytest.fixture(scope="module")
def hasty(shared: Cloud) -> Iterator[Function]:
    """Start on_data_arrival so that it gives up at the first lasting failure."""
    yield shared.function(PIPELINE_GIVE_UP_SECONDS="0.01")
    shared.github.script = []


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "Put a new token into the secret of PIPELINE_GITHUB_TOKEN"),
        (403, "the permission 'contents: write' on 'shop/models'"),
        (404, "Correct PIPELINE_REPOSITORY, or give the token access"),
        (301, "Repository 'shop/models' has moved"),
    ],
)
def test_a_wrong_configuration_of_github_is_an_error_at_once(
    shared: Cloud, arrivals: Function, model: str, status: int, fix: str
) -> None:
    shared.github.script = [Response(status)]
    event = shared.put(f"{model}/_SUCCESS", b"")

    line = fail_once(arrivals, event)

    assert (line["severity"], line["decision"]) == ("ERROR", "blocked")
    assert fix in line["message"]
    assert line["drop"].startswith(f"{shared.bucket}/{model}/_SUCCESS#")
    assert arrivals.post(event) == 200  # once it is fixed


@pytest.mark.parametrize("status", [500, 502])
def test_an_outage_of_github_is_a_warning(
    shared: Cloud, arrivals: Function, model: str, status: int
) -> None:
    shared.github.script = [Response(status)]
    event = shared.put(f"{model}/_SUCCESS", b"")

    line = fail_once(arrivals, event)

    assert (line["severity"], line["decision"]) == ("WARNING", "retried")


def test_a_records_bucket_that_does_not_exist_is_an_error_at_once(
    shared: Cloud, model: str
) -> None:
    function = shared.function(PIPELINE_RECORDS="gs://no-such-bucket")
    event = shared.put(f"{model}/_SUCCESS", b"")

    line = fail_once(function, event)

    assert line["severity"] == "ERROR"
    assert "Create bucket 'no-such-bucket'" in line["message"]


@pytest.mark.parametrize("busy", BUSY, ids=["with a wait", "without a wait", "by its text"])
def test_a_rate_limit_never_becomes_a_dead_letter(
    shared: Cloud, hasty: Function, model: str, busy: Response
) -> None:
    hasty.die()  # so that it may call at once
    shared.github.script = [busy]
    event = shared.put(f"{model}/_SUCCESS", b"")

    assert [hasty.post(event), hasty.post(event)] == [500, 500]

    assert shared.find_records("dead", event) == []
    assert {line["severity"] for line in hasty.lines(event["id"])} == {"WARNING"}
    hasty.die()
    assert hasty.post(event) == 200
    assert len(shared.github.dispatches_of(model)) == 1


def test_every_decision_is_logged_with_its_drop(
    shared: Cloud, arrivals: Function, model: str
) -> None:
    part = shared.put(f"{model}/part.csv")
    marker = shared.put(f"{model}/_SUCCESS", b"")
    other = shared.put(f"{model}/notes.txt")

    assert [arrivals.post(event) for event in (part, other, marker, marker)] == [200] * 4

    lines = arrivals.lines(f"{shared.bucket}/{model}/")
    assert [line["decision"] for line in lines] == [
        "left",
        "ignored",
        "dispatched",
        "left",
    ]
    names = [line["drop"].partition("#")[0].rpartition("/")[2] for line in lines]
    assert names == ["part.csv", "notes.txt", "_SUCCESS", "_SUCCESS"]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "Check PIPELINE_GITHUB_APP_ID and PIPELINE_GITHUB_PRIVATE_KEY"),
        (404, "check PIPELINE_GITHUB_INSTALLATION_ID"),
        (422, "Install the GitHub App on 'shop/models'"),
    ],
)
def test_a_wrong_configuration_of_a_github_app_is_an_error_at_once(
    app: Function, shared: Cloud, model: str, status: int, fix: str
) -> None:
    shared.github.refusals = [Response(status)]
    event = shared.put(f"{model}/_SUCCESS", b"")

    line = fail_once(app, event)

    assert line["severity"] == "ERROR"
    assert fix in line["message"]


@pytest.fixture
def app(shared: Cloud) -> Iterator[Function]:
    """Start on_data_arrival so that it calls GitHub as an App."""
    settings = {"PIPELINE_GITHUB_TOKEN": "", "PIPELINE_GITHUB_APP_ID": "12"}
    settings |= {"PIPELINE_GITHUB_INSTALLATION_ID": "34", "PIPELINE_GITHUB_PRIVATE_KEY": KEY}
    function = shared.function(**settings)
    yield function
    function.kill()


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "9" * 400},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795720000000"},  # milliseconds
    ],
)
def test_a_requested_wait_is_limited_to_an_hour(headers: dict[str, str]) -> None:
    answer = httpx.Response(403, headers=headers)

    assert requested_wait(answer, now=1_795_720_000.0) == 3600.0
