"""The functions as they are deployed: their folders, settings and secrets; the second function."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwt

from functions.common.storage import MetadataToken, StorageError
from tests.functions.conftest import World
from tests.functions.servers import Answer, Asked, serving

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


class TestReleases:
    def test_a_release_starts_a_deployment(self, world: World, model: str) -> None:
        function = world.function("on_model_release")
        event = world.put(f"{model}/releases/00000007.json", b"{}")

        assert [function.post(event), function.post(event)] == [200, 200]

        told = {key: event["data"][key] for key in ("bucket", "name", "generation")}
        assert world.github.dispatched == [
            {"event_type": "model-released", "client_payload": {"model": model, **told}}
        ]

    def test_other_objects_of_a_model_store_start_none(self, world: World, model: str) -> None:
        function = world.function("on_model_release")
        names = ("releases/7.json", "releases/00000007.json.bak", "versions/1/manifest.json")
        events = [world.put(f"{model}/{name}", b"{}") for name in names]
        events += [world.put(f"{model}/releases/00000008.json", b"")]

        assert [function.post(event) for event in events] == [200] * 4

        assert world.github.asked == []


class TestGitHubApp:
    def test_it_proves_who_it_is_and_keeps_its_token_while_that_is_good(
        self, world: World, model: str
    ) -> None:
        key, public = new_key()
        function = world.function(
            PIPELINE_GITHUB_TOKEN="",
            PIPELINE_GITHUB_APP_ID="12",
            PIPELINE_GITHUB_INSTALLATION_ID="34",
            PIPELINE_GITHUB_PRIVATE_KEY=key,
        )
        events = [world.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2)]

        assert [function.post(event) for event in events] == [200, 200]

        asked = world.github.asked[0]
        claims = jwt.decode(
            asked.headers["authorization"].removeprefix("Bearer "), public, algorithms=["RS256"]
        )
        assert asked.path == "/app/installations/34/access_tokens"
        assert asked.json == {"repositories": ["models"]}
        assert claims["iss"] == "12"
        assert claims["exp"] - claims["iat"] <= 600
        assert world.github.tokens_given == 1
        assert len(world.github.dispatched) == 2

    def test_a_token_that_was_revoked_is_replaced(self, world: World, model: str) -> None:
        key, _ = new_key()
        function = world.function(
            PIPELINE_GITHUB_TOKEN="",
            PIPELINE_GITHUB_APP_ID="12",
            PIPELINE_GITHUB_INSTALLATION_ID="34",
            PIPELINE_GITHUB_PRIVATE_KEY=key,
        )
        first, second = (world.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2))
        assert function.post(first) == 200
        world.github.token = "another"

        assert [function.post(second), function.post(second)] == [500, 200]

        assert world.github.tokens_given == 2

    def test_no_secret_is_ever_logged(self, world: World, model: str) -> None:
        key, _ = new_key()
        function = world.function(
            PIPELINE_GITHUB_TOKEN="",
            PIPELINE_GITHUB_APP_ID="12",
            PIPELINE_GITHUB_INSTALLATION_ID="34",
            PIPELINE_GITHUB_PRIVATE_KEY=key,
        )
        world.github.script = [Answer(500)]
        event = world.put(f"{model}/_SUCCESS", b"")

        assert [function.post(event), function.post(event)] == [500, 200]

        logged = function.log.read_text()
        assert "To be delivered again" in logged
        assert world.github.token not in logged
        assert not any(line in logged for line in key.splitlines())


class TestFolders:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_each_is_complete_in_itself_and_pins_all_it_loads(
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
        ran = subprocess.run(
            [sys.executable, "-c", OWN_MODULES],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = json.loads(ran.stdout)

        pinned = (folder / "requirements.txt").read_text()
        assert {Path(file).relative_to(folder).parts[0] for file in loaded["own"]} == {
            "functions",
            "services",
        }
        loose = {each for each in loaded["others"] if f"\n{canonical(each)}==" not in pinned}
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
        ],
    )
    def test_a_function_with_a_bad_setting_does_not_start(
        self, bundles: Path, settings: dict[str, str], variable: str
    ) -> None:
        folder = bundles / "on_data_arrival"
        environment = settings | {"PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", "import main"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )

        assert ran.returncode == 2
        assert ran.stderr.startswith(f"error: {variable}")
        assert ran.stderr.count("\n") == 1


class TestAccessToken:
    def test_it_is_asked_of_the_metadata_server_once(self) -> None:
        asked: list[Asked] = []

        def answer(request: Asked) -> Answer:
            asked.append(request)
            return Answer(200, b'{"access_token": "abc", "expires_in": 3600}')

        with serving(answer) as url:
            token = MetadataToken(url.removeprefix("http://"))

            assert (token.get(), token.get()) == ("abc", "abc")

        assert [one.headers["metadata-flavor"] for one in asked] == ["Google"]

    def test_one_that_is_about_to_end_is_renewed(self) -> None:
        answers = iter([b'{"access_token": "a", "expires_in": 30}'] * 2)
        with serving(lambda _: Answer(200, next(answers))) as url:
            token = MetadataToken(url.removeprefix("http://"))

            assert (token.get(), token.get()) == ("a", "a")

        assert next(answers, None) is None

    def test_none_is_a_reason_for_a_redelivery(self) -> None:
        with serving(lambda _: Answer(404)) as url, pytest.raises(StorageError):
            MetadataToken(url.removeprefix("http://")).get()


UNPINNED = {"tollgate", "Pygments", "rich", "setuptools"}
"""Our own modules, and what httpx and the interpreter load where it is there and do without."""


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def new_key() -> tuple[str, str]:
    """A fresh RSA key as PEM, private and public."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()
