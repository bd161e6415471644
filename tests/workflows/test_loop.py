"""From data in a bucket to a served model and back, by functions and the workflows' own steps."""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from chaos.accounts import PER_REQUEST, PER_ROW, PLENTY, prepaid
from services.common.model_store import ModelStore
from tests.e2e.platform import Platform, end, eventually
from tests.functions.conftest import World
from tests.functions.servers import serving
from tests.gcs import Emulator
from tests.workflows.load import CountingDoor, Load, paying
from tests.workflows.runner import Runner

INSTANCE = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=inference"
MODEL = "cellar"
ASK = {"instances": [{"sweet": 9.0, "strong": 1.0}]}
PREDICT = f"/v1/models/{MODEL}:predict"
MANUAL = {"name": "workflow_dispatch"}


class Shop:
    """A platform on a data bucket and a model bucket, both functions, and a runner of workflows."""

    def __init__(self, world: World, emulator: Emulator, folder: Path) -> None:
        self.world, self._stack, self._folder = world, ExitStack(), folder
        data, models = world.bucket, world.new_bucket()
        self.models = models
        self.door = CountingDoor(emulator.url, models)
        self._stack.callback(self.door.close)
        self.environment = {
            "STORAGE_EMULATOR_HOST": self._stack.enter_context(serving(self.door.answer)),
            "INFERENCE_MODEL_STORE": f"gs://{models}",
            "TRAINER_MODEL_STORE": f"gs://{models}",
            "TRAINER_DATA_STORE": f"gs://{data}",
        }

    def open(self) -> None:
        """Start all of it."""
        world, home = self.world, self._folder / "home"
        self.arrivals = world.function("on_data_arrival")
        watched = f"gs://{self.models}"
        self.releases = world.function("on_model_release", PIPELINE_STORE=watched)
        self.platform = Platform(home, self.environment)
        self._stack.callback(end, self.platform)
        self.platform.start()
        self.runner = Runner(
            self._folder / "runner",
            vars={
                "DATA_STORE": self.environment["TRAINER_DATA_STORE"],
                "MODEL_STORE": self.environment["TRAINER_MODEL_STORE"],
                "SIGNING_SECRET": "signing",
                "TRUSTED_SECRETS": "first",
                "NAMESPACE": "sales",
                "HELM_RELEASE": "shop",
            },
            environment={"STORAGE_EMULATOR_HOST": self.environment["STORAGE_EMULATOR_HOST"]},
        )
        self.runner.secret("signing", (home / "keys/signing.pem").read_bytes())
        [trusted] = (home / "keys/trusted").glob("*.pem")
        self.runner.secret("first", trusted.read_bytes())
        url = self.platform.urls["inference"]
        self.runner.pods({"inference-1": url, "inference-2": url})

    def close(self) -> None:
        self._stack.close()

    def drop(self, *parts: str) -> dict[str, Any]:
        """Put parts into the data bucket and deliver their events; what starts a workflow."""
        events = [self.world.put(f"{MODEL}/{name}.csv", rows(name)) for name in parts]
        waiting = [self.arrivals.post_aside(event) for event in events]
        return self._dispatched(lambda: [answer() for answer in waiting])

    def deliver(self, name: str) -> dict[str, Any]:
        """Deliver the event of an object in the model bucket; what starts a workflow."""
        event = self.world.event_of(self.models, name)
        return self._dispatched(lambda: [self.releases.post(event)])

    def live_looks(self, number: int) -> int:
        """The looks at the store that may have begun when a release has to be served.

        The one at its writing may have missed it; two polls follow.
        """
        return self.door.looks_before[f"{number:08d}"] + 3

    def records(self, store: ModelStore) -> list[Any]:
        return [store.find_release(MODEL, number) for number in store.list_releases(MODEL)]

    def _dispatched(self, deliver: Any) -> dict[str, Any]:
        before = len(self.world.github.dispatched)
        assert set(deliver()) == {200}
        [document] = self.world.github.dispatched[before:]
        return {"name": "repository_dispatch", "client_payload": document["client_payload"]}


@pytest.fixture
def shop(world: World, gcs: Emulator, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(world, gcs, tmp_path)
    try:
        yield made
    finally:
        made.close()


def rows(part: str) -> bytes:
    """Wines that are good where they are sweeter than strong."""
    chance = random.Random(part)
    lines = ["sweet,strong,good"]
    for _ in range(80):
        sweet, strong = chance.uniform(0, 10), chance.uniform(0, 10)
        lines.append(f"{sweet:.3f},{strong:.3f},{int(sweet > strong)}")
    return "\n".join([*lines, ""]).encode()


def receipts(platform: Platform, token: str) -> list[dict[str, Any]]:
    """Every receipt of an account."""
    found: list[dict[str, Any]] = []
    cursor = None
    with platform.client("billing", token) as billing:
        while True:
            query = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
            page = billing.get("/usage/events", params=query).raise_for_status().json()
            found += page["events"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found


def test_data_becomes_a_served_model_and_a_rollback_takes_it_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", shop.environment["STORAGE_EMULATOR_HOST"])
    stated = {"target": "good", "estimators": ["linear"]}
    shop.world.put(f"{MODEL}/dataset.json", json.dumps(stated).encode())
    shop.open()
    store = ModelStore(f"gs://{shop.models}")

    trained = shop.runner.run("train.yml", event=shop.drop("part-1", "part-2"))

    assert trained["Train on what arrived"] == "success", shop.runner.said
    eventually(lambda: shop.door.looks >= shop.live_looks(1))
    account = prepaid(shop.platform, credit=PLENTY)
    with paying(shop.platform, account.token, PREDICT, ASK, shop.door) as load:
        shop.runner.run("train.yml", event=shop.drop("part-3"))

        assert store.list_releases(MODEL) == [1, 2]

        released = shop.deliver(f"{MODEL}/releases/00000002.json")
        deployed = shop.runner.run("deploy.yml", event=released)

        assert (deployed["Test"], deployed["Roll the model back"]) == ("success", "skipped")
        eventually(lambda: load.has_asked_after(shop.live_looks(2)))

        wish = {"what": "model", "model": MODEL, "reason": "we want it back"}
        shop.runner.run("rollback.yml", event=MANUAL, inputs=wish)

        eventually(lambda: load.has_asked_after(shop.live_looks(3)))

    first, second, third = shop.records(store)
    assert [first.action, second.action, third.action] == ["release", "release", "rollback"]
    assert first.version == third.version != second.version
    assert second.by == "github/ada"
    assert ["test", "shop", "--namespace", "sales", "--logs"] in shop.runner.calls("helm")
    assert any(INSTANCE in call for call in shop.runner.calls("kubectl"))
    assert_none_failed_and_each_swap_took_two_polls(
        load, shop, [first.version, second.version, third.version]
    )
    assert_each_is_billed(load, shop.platform, account.token)


def assert_none_failed_and_each_swap_took_two_polls(
    load: Load, shop: Shop, versions: list[str]
) -> None:
    assert {(answer.status, str(answer.predictions)) for answer in load.answers} == {(200, "[1]")}
    served_from = {number: shop.live_looks(number) for number in (2, 3)}
    for caller in load.callers:
        assert [version for version, _ in groupby(one.version for one in caller)] == versions
        last_of_first = max(one.looks for one in caller[: index_of(caller, versions[1])])
        last_of_second = max(one.looks for one in caller if one.version == versions[1])
        assert last_of_first < served_from[2]
        assert last_of_second < served_from[3]


def index_of(caller: list[Any], version: str) -> int:
    return next(place for place, one in enumerate(caller) if one.version == version)


def assert_each_is_billed(load: Load, platform: Platform, token: str) -> None:
    answered = [answer.event for answer in load.answers]
    eventually(lambda: platform.usage(token)["requests"] >= len(answered))

    assert sorted(one["id"] for one in receipts(platform, token)) == sorted(map(str, answered))
    spent = len(answered) * Decimal(PER_REQUEST + PER_ROW)
    with platform.client("billing", token) as billing:
        balance = Decimal(billing.get("/balance").raise_for_status().json()["balance"])
    assert balance == (PLENTY - spent) / 10**9
