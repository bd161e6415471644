"""A shop on one machine: buckets, functions, workflows and services.

The functions, the services, `make` and `tollgate` are real; the buckets are emulated. GitHub,
gcloud, docker, helm and kubectl are fakes from the harness.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from harness.cloud import Cloud
from harness.gcs import Emulator
from harness.http_servers import serving
from harness.platform import Platform, end
from harness.storage_proxies import CountingProxy
from harness.stores import PlatformStore
from harness.workflow_runner import Runner

MODEL = "cellar"
REQUEST = {"instances": [{"sweet": 9.0, "strong": 1.0}]}
PREDICT = f"/v1/models/{MODEL}:predict"
MANUAL = {"name": "workflow_dispatch"}


class Shop:
    """A platform with a data bucket, a model bucket, both functions, and a workflow runner."""

    def __init__(self, cloud: Cloud, emulator: Emulator, folder: Path) -> None:
        self.cloud, self._stack, self._folder = cloud, ExitStack(), folder
        data, models = cloud.bucket, cloud.new_bucket()
        self.models = models
        self.proxy = self._stack.enter_context(CountingProxy(emulator.url, models))
        self.environment = {
            "STORAGE_EMULATOR_HOST": self._stack.enter_context(serving(self.proxy.answer)),
            "INFERENCE_MODEL_STORE": f"gs://{models}",
            "TRAINER_MODEL_STORE": f"gs://{models}",
            "TRAINER_DATA_STORE": f"gs://{data}",
        }

    @property
    def home(self) -> Path:
        """The state folder of the platform."""
        return self._folder / "home"

    def open(self) -> None:
        """Start the functions, the platform and the workflow runner."""
        cloud = self.cloud
        self.arrivals = cloud.function("on_data_arrival")
        watched = f"gs://{self.models}"
        self.releases = cloud.function("on_model_release", PIPELINE_STORE=watched)
        self.platform = Platform(self.home, self.environment)
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
                "AUTH_URL": self.platform.urls["auth"],
                "INFERENCE_URL": self.platform.urls["inference"],
                "WAIT_SECONDS": "8",
                "CHECK_SECONDS": "30",
            },
            environment={"STORAGE_EMULATOR_HOST": self.environment["STORAGE_EMULATOR_HOST"]},
        )
        self.runner.secret("signing", (self.home / "keys/signing.pem").read_bytes())
        [trusted] = (self.home / "keys/trusted").glob("*.pem")
        self.runner.secret("first", trusted.read_bytes())
        self._make_client()
        url = self.platform.urls["inference"]
        self.runner.pods({"inference-1": url, "inference-2": url})

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()

    def drop(self, *parts: str) -> dict[str, Any]:
        """Upload parts and deliver their events; return the event that starts a workflow."""
        events = [self.cloud.put(f"{MODEL}/{name}.csv", rows(name)) for name in parts]
        deliveries = [self.arrivals.post_aside(event) for event in events]
        return self._dispatched(lambda: [join() for join in deliveries])

    def deliver(self, name: str) -> dict[str, Any]:
        """Deliver the event of a model store object; return the event that starts a workflow."""
        event = self.cloud.event_of(self.models, name)
        return self._dispatched(lambda: [self.releases.post(event)])

    def polls_until_live(self, number: int) -> int:
        """Return the number of store polls by which a release must be served.

        The poll during its write may have missed it; two more follow.
        """
        return self.proxy.polls_before[f"{number:08d}"] + 3

    @property
    def store(self) -> PlatformStore:
        """The model store, with the keys of the platform."""
        return PlatformStore(self.home, f"gs://{self.models}")

    def records(self) -> list[Any]:
        """Return the release records of the model, in order."""
        store = self.store.store
        return [store.find_release(MODEL, number) for number in store.list_releases(MODEL)]

    def _make_client(self) -> None:
        """Create the machine client that the workflows' secrets name."""
        with self.platform.client("auth", self.platform.new_token()) as auth:
            created = auth.post("/clients", json={"name": "release check", "scope": "predict"})
        document = created.raise_for_status().json()
        self.runner.vars["CHECK_CLIENT_ID"] = document["client_id"]
        self.runner.secrets["CHECK_CLIENT_SECRET"] = document["client_secret"]

    def _dispatched(self, deliver: Callable[[], list[int]]) -> dict[str, Any]:
        before = len(self.cloud.github.dispatched)
        statuses = deliver()
        [document] = self.cloud.github.dispatched[before:]
        if set(statuses) != {200}:
            raise RuntimeError(f"a function responded {statuses}")
        return {"name": "repository_dispatch", "client_payload": document["client_payload"]}


@contextmanager
def new_shop(cloud: Cloud, emulator: Emulator, folder: Path) -> Iterator[Shop]:
    """Yield a shop, which the caller opens, and close it after the block."""
    shop = Shop(cloud, emulator, folder)
    try:
        yield shop
    finally:
        shop.close()


def rows(part: str) -> bytes:
    """Return wines as CSV; those that are sweeter than strong are good."""
    generator = random.Random(part)
    lines = ["sweet,strong,good"]
    for _ in range(80):
        sweet, strong = generator.uniform(0, 10), generator.uniform(0, 10)
        lines.append(f"{sweet:.3f},{strong:.3f},{int(sweet > strong)}")
    return "\n".join([*lines, ""]).encode()
