"""The deployed functions: folders, settings and secrets; and the second function."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jose import jwt

from functions.common.settings import PipelineSettings
from functions.common.storage import MetadataToken, StorageError
from harness.cloud import Cloud, Function, new_cloud
from harness.gcs import Emulator
from harness.github import GitHub
from harness.http_servers import BlockedCall, Request, Response, serving
from harness.issuer import new_private_key, private_pem, public_pem

FUNCTIONS = ("on_data_arrival", "on_model_release")
OWN_MODULES = """
import json, sys
from importlib.metadata import packages_distributions
import main
loaded = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
own = [file for name, file in loaded.items() if name.split(".")[0] in ("functions", "services")]
distributions = packages_distributions()
packages = (distributions.get(name.split(".")[0], []) for name in loaded)
others = {each[0] for each in packages if len(each) == 1}
print(json.dumps({"own": [file for file in own if file], "others": sorted(others)}))
"""


COMPLETE = {
    "PIPELINE_STORE": "gs://data",
    "PIPELINE_RECORDS": "gs://r",
    "PIPELINE_REPOSITORY": "shop/models",
}


@dataclass
class App:
    """on_data_arrival that calls GitHub as an App, with the App's key (PEM)."""

    cloud: Cloud
    function: Function
    key: str
    public: str

    @property
    def github(self) -> GitHub:
        return self.cloud.github


@pytest.fixture(scope="module")
def app(gcs: Emulator, tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> Iterator[App]:
    private = new_private_key()
    key, public = private_pem(private), public_pem(private)
    with new_cloud(gcs, tmp_path_factory.mktemp("app"), bundles) as cloud:
        function = cloud.function(
            PIPELINE_GITHUB_TOKEN="",
            PIPELINE_GITHUB_APP_ID="12",
            PIPELINE_GITHUB_INSTALLATION_ID="34",
            PIPELINE_GITHUB_PRIVATE_KEY=key,
        )
        yield App(cloud, function, key, public)


@pytest.fixture(scope="module")
def releases(shared: Cloud) -> Function:
    return shared.function("on_model_release")


class TestReleases:
    def test_a_release_starts_a_deployment_although_the_function_dies_before_the_dispatch(
        self, shared: Cloud, releases: Function, model: str
    ) -> None:
        blocked = BlockedCall()
        shared.github.script = [blocked]
        event = shared.put(f"{model}/releases/00000007.json", b"{}")
        waiting = releases.post_aside(event)
        blocked.arrived()
        releases.die()
        blocked.release()
        assert waiting() == 0

        assert [releases.post(event), releases.post(event)] == [200, 200]

        payload = {key: event["data"][key] for key in ("bucket", "name", "generation")}
        assert shared.github.dispatches_of(model) == [
            {"event_type": "model-released", "client_payload": {"model": model, **payload}}
        ]

    def test_other_objects_of_a_model_store_start_no_deployment(
        self, shared: Cloud, releases: Function, model: str
    ) -> None:
        names = ("releases/7.json", "releases/00000007.json.bak", "versions/1/manifest.json")
        events = [shared.put(f"{model}/{name}", b"{}") for name in names]
        events += [shared.put(f"{model}/releases/00000008.json", b"")]
        before = len(shared.github.requests)

        assert [releases.post(event) for event in events] == [200] * 4

        assert len(shared.github.requests) == before


class TestGitHubApp:
    def test_it_authenticates_and_caches_its_token(self, app: App, model: str) -> None:
        app.function.die()  # so that it has no token yet
        given, before = app.github.tokens_given, len(app.github.requests)
        events = [app.cloud.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2)]

        assert [app.function.post(event) for event in events] == [200, 200]

        first = app.github.requests[before]
        claims = jwt.decode(
            first.headers["authorization"].removeprefix("Bearer "), app.public, algorithms=["RS256"]
        )
        assert first.path == "/app/installations/34/access_tokens"
        assert first.json == {"repositories": ["models"]}
        assert claims["iss"] == "12"
        assert claims["exp"] - claims["iat"] <= 600
        assert app.github.tokens_given == given + 1
        assert app.github.calls_of(model) == 2

    def test_a_token_that_was_revoked_is_replaced(self, app: App, model: str) -> None:
        first, second = (app.cloud.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2))
        assert app.function.post(first) == 200
        given, app.github.token = app.github.tokens_given, "another"

        assert [app.function.post(second), app.function.post(second)] == [500, 200]

        assert app.github.tokens_given == given + 1

    def test_it_waits_for_its_token_as_long_as_github_requests(self, app: App, model: str) -> None:
        app.function.die()
        app.github.refusals = [Response(403, headers={"Retry-After": "2"})]
        event = app.cloud.put(f"{model}/_SUCCESS", b"")
        calls_before = len(app.github.times)

        assert app.function.post(event) == 200

        refused, asked_again = app.github.times[calls_before : calls_before + 2]
        assert asked_again - refused >= 2
        assert app.github.calls_of(model) == 1

    def test_no_secret_is_ever_logged(self, app: App, model: str) -> None:
        app.github.script = [Response(500)]
        event = app.cloud.put(f"{model}/_SUCCESS", b"")

        assert [app.function.post(event), app.function.post(event)] == [500, 200]

        logged = app.function.log.read_text()
        assert "Needs redelivery" in logged
        assert app.github.token not in logged
        assert not any(line in logged for line in app.key.splitlines())


@pytest.mark.costly
def test_a_secret_with_a_trailing_line_break_works(cloud: Cloud, model: str) -> None:
    function = cloud.function(PIPELINE_GITHUB_TOKEN=f"{cloud.github.token}\n")

    assert function.post(cloud.put(f"{model}/_SUCCESS", b"")) == 200

    assert cloud.github.calls_of(model) == 1


def test_an_unexpected_error_is_retried_and_logged_without_its_message(
    shared: Cloud, arrivals: Function, model: str
) -> None:
    shared.github.script = [(True, Response(502))]
    event = shared.put(f"{model}/_SUCCESS", b"")
    assert arrivals.post(event) == 500
    shared.github.runs_body = b"no JSON: a secret"

    refused = arrivals.post(event)
    shared.github.runs_body = None

    assert (refused, arrivals.post(event)) == (500, 200)
    [line] = arrivals.lines("JSONDecodeError")
    assert (line["severity"], "github.py:" in line["at"]) == ("ERROR", True)
    assert "a secret" not in arrivals.log.read_text()


class TestFolders:
    @pytest.mark.costly
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_each_is_self_contained_and_pins_its_dependencies(
        self, bundles: Path, name: str
    ) -> None:
        folder = bundles / name
        environment = {
            "PIPELINE_STORE": "gs://data",
            "PIPELINE_RECORDS": "gs://records",
            "PIPELINE_REPOSITORY": "shop/models",
            "PIPELINE_GITHUB_TOKEN": "token",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        result = subprocess.run(
            [sys.executable, "-c", OWN_MODULES],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = json.loads(result.stdout)

        pinned = set(PINNED.findall((folder / "requirements.txt").read_text()))
        assert {Path(file).relative_to(folder).parts[0] for file in loaded["own"]} == {
            "functions",
            "services",
        }
        loose = {each for each in loaded["others"] if canonical(each) not in pinned}
        assert loose <= UNPINNED

    @pytest.mark.parametrize(
        ("settings", "variable"),
        [
            ({}, "PIPELINE_STORE"),
            ({"PIPELINE_STORE": "s3://data"}, "PIPELINE_STORE"),
            ({"PIPELINE_STORE": "gs://data", "PIPELINE_RECORDS": "gs://r"}, "PIPELINE_REPOSITORY"),
            (
                {
                    "PIPELINE_STORE": "gs://data",
                    "PIPELINE_RECORDS": "gs://r",
                    "PIPELINE_REPOSITORY": "shop/models",
                    "PIPELINE_GITHUB_APP_ID": "12",
                },
                "PIPELINE_GITHUB_TOKEN",
            ),
            (COMPLETE | {"PIPELINE_GITHUB_TOKEN": "two words"}, "PIPELINE_GITHUB_TOKEN"),
            (
                COMPLETE
                | {
                    "PIPELINE_GITHUB_APP_ID": "12",
                    "PIPELINE_GITHUB_INSTALLATION_ID": "34",
                    "PIPELINE_GITHUB_PRIVATE_KEY": "two words",
                },
                "PIPELINE_GITHUB_PRIVATE_KEY",
            ),
        ],
    )
    def test_an_invalid_setting_is_reported_in_one_line(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        settings: dict[str, str],
        variable: str,
    ) -> None:
        for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
            monkeypatch.delenv(name)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(SystemExit) as stopped:
            PipelineSettings.load()

        message = capfd.readouterr().err
        assert stopped.value.code == 2
        assert message.startswith(f"error: {variable}")
        assert message.count("\n") == 1
        assert "two words" not in message

    @pytest.mark.costly
    def test_a_function_with_an_invalid_setting_does_not_start(self, bundles: Path) -> None:
        result = subprocess.run(
            [sys.executable, "-c", "import main"],
            cwd=bundles / "on_data_arrival",
            env=COMPLETE | {"PYTHONDONTWRITEBYTECODE": "1", "PIPELINE_STORE": "s3://data"},
            capture_output=True,
            text=True,
        )

        assert result.returncode == 2
        assert result.stderr == "error: PIPELINE_STORE: must be gs://bucket or gs://bucket/prefix\n"


class TestAccessToken:
    def test_it_is_fetched_once_from_the_metadata_server(self) -> None:
        requests: list[Request] = []

        def answer(request: Request) -> Response:
            requests.append(request)
            return Response(200, b'{"access_token": "abc", "expires_in": 3600}')

        with serving(answer) as url:
            token = MetadataToken(url.removeprefix("http://"))

            assert (token.get(), token.get()) == ("abc", "abc")

        assert [one.headers["metadata-flavor"] for one in requests] == ["Google"]

    def test_an_expiring_token_is_renewed(self) -> None:
        answers = iter([b'{"access_token": "a", "expires_in": 30}'] * 2)
        with serving(lambda _: Response(200, next(answers))) as url:
            token = MetadataToken(url.removeprefix("http://"))

            assert (token.get(), token.get()) == ("a", "a")

        assert next(answers, None) is None

    @pytest.mark.costly
    def test_a_missing_token_requires_a_redelivery(self) -> None:
        with serving(lambda _: Response(404)) as url, pytest.raises(StorageError):
            MetadataToken(url.removeprefix("http://")).get()


PINNED = re.compile(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==", re.MULTILINE)
UNPINNED = {"tollgate", "Pygments", "rich", "setuptools"}
"""Our own modules, and optional ones that httpx and the interpreter import if they exist."""


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
