"""A model `price` with known predictions, versions tried beside it, and its callers."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from harness.ports import free_port
from harness.processes import await_process, stop_process
from harness.services import start_service
from harness.waiting import is_ready
from registry.records import Release
from registry.releases import ReleaseManager
from services.inference.rollouts.canary import rollout_bucket
from services.inference.settings import InferenceSettings
from tests.integration.inference import crafted
from tests.integration.inference.conftest import serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.shelf import Shelf

PRICE = "/v1/models/price:predict"
GOOD_ROW = [2.0, 3.0]
BAD_ROW = [-2.0, 3.0]
"""A row for which `crafted.failing_below_zero` has no finite output."""


class Trial(Shelf):
    """A store whose live version of `price` returns the sum of a row."""

    def __init__(self, samples: Store, folder: Path) -> None:
        super().__init__(samples, folder)
        self.release_manager = ReleaseManager(store=self.store, trusted=self.trusted, by="ada@lab")
        self.live_version = crafted.publish(self, crafted.weighted())
        self.release_manager.release("price", version=self.live_version)

    def settings(self, like: InferenceSettings, **changes: object) -> InferenceSettings:
        """Return settings for another process on this store."""
        run = self.folder.parent / uuid.uuid4().hex
        own = {
            "model_store": self.store_url,
            "cache_dir": run / "cache",
            "journal_dir": run / "journal",
            "feedback_store": f"file://{run}/feedback",
        }
        return like.model_copy(update=own | changes)

    def current(self) -> Release:
        release = self.store.live_release("price", self.trusted)
        assert release is not None
        return release

    @asynccontextmanager
    async def serving(
        self, like: InferenceSettings, **changes: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        async with serving(self.settings(like, **changes)) as client:
            yield client


def account_of(canary: str, *, chosen: bool, percent: float) -> str:
    """Return an account that a canary of `percent` serves, or one that it does not."""
    while True:
        account = str(uuid.uuid4())
        if (rollout_bucket(account, model="price", version=canary) < percent) == chosen:
            return account


async def ask(
    client: httpx.AsyncClient, token: str, *, rows: int = 1, row: list[float] = GOOD_ROW
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await client.post(PRICE, json={"instances": [row] * rows}, headers=headers)


def version_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-model-version"]


async def serves(client: httpx.AsyncClient, release: int, *, url: str = "") -> bool:
    """Return whether a process serves a release."""
    return await metric(client, "tollgate_model_live_release", url=url, model="price") == release


async def metric(client: httpx.AsyncClient, name: str, *, url: str = "", **labels: str) -> float:
    """Return a sample of `/metrics`, or 0."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in (await client.get(f"{url}/metrics")).text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(each in line for each in wanted):
            return float(line.split()[-1])
    return 0.0


def token(neighbours: Neighbours, account: str | None = None) -> str:
    return neighbours.token(account=account)


@asynccontextmanager
async def process(own: InferenceSettings, **environment: str) -> AsyncIterator[str]:
    """Start an inference process on a free port, and yield its URL once it is ready."""
    port = free_port()
    secret = own.client_secret.get_secret_value()
    complete = (
        os.environ
        | environment
        | {
            "INFERENCE_PORT": str(port),
            "INFERENCE_AUTH_URL": own.auth_url,
            "INFERENCE_BILLING_URL": own.billing_url,
            "INFERENCE_CLIENT_ID": own.client_id,
            "INFERENCE_CLIENT_SECRET": secret,
            "INFERENCE_MODEL_STORE": own.model_store,
            "INFERENCE_TRUSTED_KEYS": str(own.trusted_keys),
            "INFERENCE_CACHE_DIR": str(own.cache_dir),
            "INFERENCE_JOURNAL_DIR": str(own.journal_dir),
            "INFERENCE_FEEDBACK_STORE": own.feedback_store,
            "INFERENCE_MODEL_POLL_SECONDS": "0.2",
            "INFERENCE_LOG_LEVEL": "ERROR",
        }
    )
    running = start_service("inference", environment=complete, log=None)
    url = f"http://127.0.0.1:{port}"
    try:
        # In threads: the process calls the neighbours, which run on this loop.
        await asyncio.to_thread(await_process, running, lambda: is_ready(url))
        yield url
    finally:
        await asyncio.to_thread(stop_process, running)
