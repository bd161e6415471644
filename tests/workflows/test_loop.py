"""From data in a bucket to a served model and back, by functions and the workflows' own steps."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.leash import on_leash
from services.common.model_store import ModelStore
from tests.e2e.platform import ROOT, Platform, eventually
from tests.functions.conftest import World
from tests.workflows.runner import Runner

INSTANCE = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=inference"


@contextmanager
def inference(platform: Platform) -> Iterator[str]:
    """One inference process, alone; its URL."""
    with platform.log.open("ab") as output:
        process = subprocess.Popen(
            on_leash(sys.executable, "-m", "services.inference"),
            cwd=ROOT,
            env=platform.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = platform.urls["inference"]
    try:
        eventually(lambda: "model_live_release{" in _metrics(url))
        yield url
    finally:
        process.kill()
        process.wait()


def _metrics(url: str) -> str:
    try:
        return httpx.get(f"{url}/metrics", trust_env=False).text
    except httpx.TransportError:
        return ""


class Shop:
    """The stores in a state folder, the runner that works on them, and what is live."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.store = ModelStore(f"file://{home}/models")
        variables = {
            "DATA_STORE": f"file://{home}/data",
            "MODEL_STORE": f"file://{home}/models",
            "SIGNING_SECRET": "signing",
            "TRUSTED_SECRETS": "first",
            "NAMESPACE": "sales",
            "HELM_RELEASE": "shop",
        }
        self.runner = Runner(folder, vars=variables)
        self.runner.secret("signing", (home / "keys/signing.pem").read_bytes())
        [trusted] = (home / "keys/trusted").glob("*.pem")
        self.runner.secret("first", trusted.read_bytes())

    def versions(self) -> list[str]:
        records = [self.store.find_release("wine", each) for each in self.releases()]
        return [record.version for record in records if record]

    def releases(self) -> list[int]:
        return self.store.list_releases("wine")

    def actions(self) -> list[str]:
        records = [self.store.find_release("wine", each) for each in self.releases()]
        return [record.action for record in records if record]


@pytest.fixture
def shop(new_home: Callable[[], Path], tmp_path: Path) -> Shop:
    return Shop(new_home(), tmp_path / "runner")


def dispatched(world: World, function: str, event: dict[str, Any]) -> dict[str, Any]:
    """Let a function take an event; what GitHub would start a workflow with."""
    running = world.function(function)
    assert running.post(event) == 200
    document = world.github.dispatched[-1]
    return {"name": "repository_dispatch", "client_payload": document["client_payload"]}


def test_data_becomes_a_served_model_and_a_rollback_takes_it_back(world: World, shop: Shop) -> None:
    with inference(Platform(shop.home)) as url:
        shop.runner.pods({"inference-1": url, "inference-2": url})
        arrived = dispatched(world, "on_data_arrival", world.put("wine/_SUCCESS", b""))

        trained = shop.runner.run("train.yml", event=arrived)
        again = shop.runner.run("train.yml", event=arrived)

        assert set(trained.values()) == set(again.values()) == {"success", "skipped"}
        assert shop.releases() == [1, 2]
        assert shop.store.find_release("wine", 2).by == "github/ada"  # type: ignore[union-attr]

        record = (shop.home / "models/wine/releases/00000002.json").read_bytes()
        world.bucket = world.new_bucket()  # another function watches another bucket
        event = world.put("wine/releases/00000002.json", record)
        released = dispatched(world, "on_model_release", event)
        deployed = shop.runner.run("deploy.yml", event=released)

        assert deployed["Test"] == "success"
        assert deployed["Roll the model back"] == "skipped"
        assert f'version="{shop.versions()[1]}"' in _metrics(url)
        assert ["test", "shop", "--namespace", "sales", "--logs"] in shop.runner.calls("helm")
        assert any(INSTANCE in call for call in shop.runner.calls("kubectl"))

        manual = {"name": "workflow_dispatch"}
        wish = {"what": "model", "model": "wine", "reason": "we want it back"}
        shop.runner.run("rollback.yml", event=manual, inputs=wish)

        first, second, third = shop.versions()
        assert (shop.actions(), third) == (["release", "release", "rollback"], first)
        eventually(lambda: f'version="{first}"' in _metrics(url))
        assert first != second
