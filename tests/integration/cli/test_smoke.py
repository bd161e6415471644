"""`tollgate models check` judges only the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.serving.smoke import Received, judge_answer
from harness.http_servers import Request, Response, serving
from harness.stores import FIRST, SECOND, SignedStore, manifest
from registry.records import WarmUp
from tests.integration.trainer.conftest import Workshop, new_workshop

GOOD: dict[str, Any] = {"predictions": [0, 1], "probabilities": [[1.0, 0.0], [0.0, 1.0]]}
NOT_FOUND = {"type": "urn:tollgate:problem:model_not_found"}


@pytest.mark.parametrize(
    ("status", "version", "document", "verdict"),
    [
        (200, FIRST, GOOD, "good"),
        (200, FIRST, GOOD | {"predictions": [1, 1]}, "wrong"),
        (200, FIRST, GOOD | {"predictions": [0]}, "wrong"),
        (200, FIRST, GOOD | {"probabilities": [[0.9, 0.1], [0.0, 1.0]]}, "wrong"),
        (200, FIRST, {"predictions": [0, 1]}, "wrong"),
        (200, SECOND, GOOD, "wrong"),
        (200, None, GOOD, "wrong"),
        (200, FIRST, {}, "unknown"),
        (404, None, NOT_FOUND, "wrong"),
        (404, None, {}, "unknown"),
        (422, None, {"type": "urn:tollgate:problem:invalid_input"}, "wrong"),
        (500, None, {"type": "urn:tollgate:problem:internal"}, "wrong"),
        (500, None, {}, "unknown"),
        *[(status, None, {}, "unknown") for status in (301, 401, 402, 403, 429, 502, 503, 504)],
    ],
)
def test_only_a_response_of_the_model_counts_against_it(
    status: int, version: str | None, document: dict[str, Any], verdict: str
) -> None:
    released = {FIRST: manifest(FIRST)}

    finding = judge_answer(Received(status, version, document), released, asked=FIRST)

    assert finding.verdict == verdict
    assert finding.detail.endswith(".")


def test_numbers_may_differ_within_inferences_tolerance() -> None:
    recorded = WarmUp(rows=[[1.0]], predictions=[1000.0], probabilities=None)
    manifests = {FIRST: manifest(FIRST, warm_up=recorded)}

    near = judge_answer(Received(200, FIRST, {"predictions": [1000.05]}), manifests, asked=FIRST)
    far = judge_answer(Received(200, FIRST, {"predictions": [1001.0]}), manifests, asked=FIRST)

    assert (near.verdict, far.verdict) == ("good", "wrong")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Release two versions; the second is live as release 2."""
    workshop = new_workshop(tmp_path)
    key = workshop.settings.load_signing_key()
    signed_store = SignedStore(
        workshop.home, workshop.settings.model_store_url, key, workshop.trusted
    )
    for version in (FIRST, SECOND):
        signed_store.publish(version)
        workshop.release_manager.release("wine", version=version)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TOLLGATE_CLIENT_ID", "checker")
    monkeypatch.setenv("TOLLGATE_CLIENT_SECRET", "secret")
    monkeypatch.setattr("cli.serving.smoke.PAUSE_S", 0.01)
    return workshop


@contextmanager
def a_platform(answer: Response, *, auth: int = 200) -> Iterator[list[str]]:
    """Serve auth and inference at one address; yield the options for it."""

    def give(request: Request) -> Response:
        if request.path == "/token":
            return Response(auth, b'{"access_token": "token"}')
        assert request.headers["authorization"] == "Bearer token"
        assert request.json["instances"] == [[1.0], [None]]
        return answer

    with serving(give) as url:
        yield ["--url", url, "--auth-url", url]


def predicted(document: dict[str, Any], version: str = SECOND) -> Response:
    return Response(200, orjson.dumps(document), {"X-Model-Version": version})


def check(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", "check", "wine", "--within", "20", *words])


def live(workshop: Workshop) -> str | None:
    record = workshop.store.live_release("wine", workshop.trusted)
    return record.version if record else None


def test_a_model_that_predicts_as_recorded_is_good(two: Workshop) -> None:
    with a_platform(predicted(GOOD)) as options:
        result = check("--release", "2", "--withdraw", *options)

    assert result.exit_code == 0
    assert result.stdout == f"wine: Version {SECOND} predicts as recorded.\n"


@pytest.mark.parametrize(
    "answer",
    [
        predicted(GOOD | {"predictions": [1, 0]}),
        predicted(GOOD, version=FIRST),
        Response(404, orjson.dumps(NOT_FOUND)),
    ],
)
def test_a_model_that_predicts_wrongly_is_withdrawn(two: Workshop, answer: Response) -> None:
    with a_platform(answer) as options:
        result = check("--release", "2", "--withdraw", *options)

    assert (result.exit_code, live(two)) == (1, FIRST)
    assert "error: release 2 of wine is bad" in result.stderr


@pytest.mark.parametrize(
    ("answer", "auth"),
    [
        (Response(503), 200),
        (Response(402), 200),
        (Response(502, b"<html>"), 200),
        (Response(), 500),
    ],
)
def test_an_outage_of_anything_else_withdraws_nothing(
    two: Workshop, answer: Response, auth: int
) -> None:
    with a_platform(answer, auth=auth) as options:
        result = check("--release", "2", "--withdraw", "--within", "0", *options)

    assert (result.exit_code, live(two)) == (1, SECOND)
    assert "nothing was withdrawn" in result.stderr


@pytest.mark.parametrize(
    ("answers", "found"),
    [({2.0: 1, 3.0: 0}, "good"), ({2.0: 0, 3.0: 0}, "bad"), ({2.0: 0, 3.0: 1}, "bad")],
)
def test_a_canary_that_answers_the_checking_client_is_judged_by_its_own_rows(
    two: Workshop, answers: dict[float, int], found: str
) -> None:
    canary = "20261126t130000z-cccccccc"
    rows = WarmUp(rows=[[2.0], [3.0]], predictions=[1, 0], probabilities=[[0, 1], [1, 0]])
    key = two.settings.load_signing_key()
    SignedStore(two.home, two.settings.model_store_url, key, two.trusted).publish(
        canary, warm_up=rows
    )
    two.release_manager.canary("wine", version=canary, percent=50)

    def give(asked: Request) -> Response:
        if asked.path == "/token":
            return Response(200, b'{"access_token": "token"}')
        predictions = [answers.get(row[0], 0) for row in asked.json["instances"]]
        probabilities = [[1.0 - label, float(label)] for label in predictions]
        document = {"predictions": predictions, "probabilities": probabilities}
        return predicted(document, version=canary)

    with serving(give) as url:
        result = check("--release", "3", "--withdraw", "--url", url, "--auth-url", url)

    *_, last = two.store.list_releases("wine")
    assert (result.exit_code, last) == ((0, 3) if found == "good" else (1, 4))


def test_a_superseded_release_is_left_alone(two: Workshop) -> None:
    with a_platform(predicted(GOOD)) as options:
        result = check("--release", "1", "--withdraw", *options)

    assert (result.exit_code, live(two)) == (0, SECOND)


def test_a_release_that_inference_passes_over_is_not_asked_for(
    two: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_ALLOW_JOBLIB", "false")
    pickle = "20261126t130000z-cccccccc"
    key = two.settings.load_signing_key()
    SignedStore(two.home, two.settings.model_store_url, key, two.trusted).publish(
        pickle, serving="joblib"
    )
    two.release_manager.release("wine", version=pickle)  # where pickles were allowed

    with a_platform(predicted(GOOD)) as options:
        result = check(*options)

    assert (result.exit_code, live(two)) == (0, pickle)
    assert result.stdout == f"wine: Version {SECOND} predicts as recorded.\n"


def test_without_an_argument_every_live_model_is_checked(two: Workshop) -> None:
    words = ["models", "check", "--within", "0", "--tolerant"]
    with a_platform(predicted(GOOD)) as options:
        good = CliRunner().invoke(app, [*words, *options])
    with a_platform(Response(503)) as options:
        unknown = CliRunner().invoke(app, [*words, *options])

    assert (good.exit_code, unknown.exit_code) == (0, 0)
    assert good.stdout.startswith("wine: ")
    assert "could not check release 2 of wine" in unknown.stderr
