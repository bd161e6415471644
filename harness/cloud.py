"""The functions as real processes, from their deployed folders, with real servers around them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from harness.gcs import Emulator
from harness.github import GitHub
from harness.http_servers import serving
from harness.ports import free_port
from harness.processes import await_process, start_process
from harness.programs import ROOT
from harness.storage_proxies import BlockingProxy
from harness.waiting import eventually, is_answering

FINALIZED = "google.cloud.storage.object.v1.finalized"
CSV = b"x,y\n1,2\n"
# Shared, because each client creates an SSL context; no keep-alive, because processes come and go.
HTTP = httpx.Client(trust_env=False, timeout=40, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class Function:
    """A function's process: a server that loads it once, and a worker that handles events."""

    name: str
    folder: Path
    log: Path
    environment: dict[str, str]

    def start(self) -> None:
        """Start the function, and wait until it accepts events."""
        self.port = free_port()
        command = [sys.executable, "-m", "functions_framework", "--target", self.name]
        command += ["--source", "main.py", "--signature-type", "cloudevent"]
        self.process = start_process(
            *(*command, "--host", "127.0.0.1", "--port", str(self.port)),
            log=self.log,
            environment=self.environment,
            folder=self.folder,
        )
        url = f"http://127.0.0.1:{self.port}/"
        await_process(self.process, lambda: is_answering(url), log=self.log)

    def kill(self) -> None:
        """SIGKILL the server and its worker."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def die(self) -> None:
        """SIGKILL the worker; the server starts another one without its state."""
        [worker] = self._workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: worker not in (now := self._workers()) and len(now) == 1)

    def post(self, event: dict[str, Any]) -> int:
        """Deliver an event as Eventarc does; return the status, 0 if the function died."""
        attributes = {f"ce-{key}": str(value) for key, value in event.items() if key != "data"}
        headers = {"Content-Type": "application/json", **attributes}
        content = event["data"] if isinstance(event["data"], bytes) else json.dumps(event["data"])
        return self.send(content, headers)

    def post_structured(self, event: dict[str, Any]) -> int:
        """Deliver an event as one JSON document."""
        return self.send(json.dumps(event), {"Content-Type": "application/cloudevents+json"})

    def post_aside(self, event: dict[str, Any]) -> Callable[[], int]:
        """Deliver an event in a thread; return a function that waits for the status."""
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(self.post(event)))
        thread.start()

        def join() -> int:
            thread.join()
            return statuses[0]

        return join

    def lines(self, text: str) -> list[dict[str, Any]]:
        """Return the logged JSON lines that contain a text."""
        logged = self.log.read_text().splitlines()
        return [json.loads(line) for line in logged if line.startswith("{") and text in line]

    def send(self, content: str | bytes, headers: dict[str, str]) -> int:
        """Post anything; return the status, 0 if the function died."""
        url = f"http://127.0.0.1:{self.port}/"
        try:
            response = HTTP.post(url, content=content, headers=headers)
        except httpx.TransportError:
            return 0
        return response.status_code

    def _workers(self) -> list[int]:
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]


class Cloud:
    """Buckets, a fake GitHub, and the functions between them."""

    def __init__(self, emulator: Emulator, folder: Path, bundles: Path) -> None:
        self._emulator, self._folder, self._bundles = emulator, folder, bundles
        self._stack = ExitStack()
        self._started: list[Function] = []
        self.github = GitHub()
        self.github_url = self._stack.enter_context(serving(self.github.answer))
        self.proxy = self._stack.enter_context(BlockingProxy(emulator.url))
        self.proxy_url = self._stack.enter_context(serving(self.proxy.answer))
        self.bucket, self.records = self.new_bucket(), self.new_bucket()

    def new_bucket(self) -> str:
        """Return the name of a new, empty bucket."""
        return self._emulator.new_bucket().removeprefix("gs://")

    def function(self, name: str = "on_data_arrival", **settings: str) -> Function:
        """Start a function with settings for fast tests."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.settings(),
        }
        log = self._folder / f"{name}-{len(self._started)}.log"
        function = Function(name, self._bundles / name, log, environment | settings)
        function.start()
        self._started.append(function)
        return function

    def settings(self) -> dict[str, str]:
        """Return the settings of a function or a sweep."""
        return {
            "STORAGE_EMULATOR_HOST": self.proxy_url,
            "PIPELINE_STORE": f"gs://{self.bucket}",
            "PIPELINE_RECORDS": f"gs://{self.records}/_pipeline",
            "PIPELINE_REPOSITORY": "shop/models",
            "PIPELINE_GITHUB_API_URL": self.github_url,
            "PIPELINE_GITHUB_TOKEN": self.github.token,
            "PIPELINE_QUIET_SECONDS": "0.8",
            "PIPELINE_CLAIM_SECONDS": "0.5",
            "PIPELINE_DEADLINE_SECONDS": "8",
        }

    def put(self, name: str, content: bytes = CSV) -> dict[str, Any]:
        """Write an object; return the event that its bucket sends."""
        HTTP.post(
            f"{self._emulator.url}/upload/storage/v1/b/{self.bucket}/o",
            params={"uploadType": "media", "name": name},
            content=content,
        ).raise_for_status()
        return self.event_of(self.bucket, name)

    def delete(self, name: str) -> None:
        """Delete an object of the watched bucket."""
        url = f"{self._emulator.url}/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"
        HTTP.delete(url).raise_for_status()

    def event_of(self, bucket: str, name: str) -> dict[str, Any]:
        """Return the event that a bucket sends for an object's current state."""
        url = f"{self._emulator.url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        stored = HTTP.get(url).raise_for_status().json()
        keys = ("bucket", "name", "generation", "size", "timeCreated")
        return {
            "specversion": "1.0",
            "id": uuid4().hex,
            "type": FINALIZED,
            "source": f"//storage.googleapis.com/projects/_/buckets/{bucket}",
            "subject": f"objects/{name}",
            "time": stored["timeCreated"],
            "data": {key: stored[key] for key in keys},
        }

    def find_records(self, kind: str, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the records of a kind (claims, done, dead) about an event's object."""
        url = f"{self._emulator.url}/storage/v1/b/{self.records}/o"
        listing = HTTP.get(url, params={"prefix": f"_pipeline/{kind}/"}).json()
        records = []
        for item in listing.get("items", []):
            content = HTTP.get(item["mediaLink"].replace("https", "http"))
            records.append(content.json())
        generation = event["data"]["generation"]
        return [record for record in records if record["generation"] == generation]

    def close(self) -> None:
        """Kill the functions that still run, and stop the servers."""
        for function in self._started:
            if function.process.poll() is None:
                function.kill()
        self._stack.close()


@contextmanager
def new_cloud(emulator: Emulator, folder: Path, bundles: Path) -> Iterator[Cloud]:
    """Yield a cloud without functions, and close it after the block.

    Args:
        folder: for logs.
        bundles: the folder that `build_functions` returned.
    """
    cloud = Cloud(emulator, folder, bundles)
    try:
        yield cloud
    finally:
        cloud.close()


def build_functions(folder: Path) -> Path:
    """Build the deployed folders with `make functions-build`'s script; return their folder."""
    build = [sys.executable, "scripts/functions_build.py", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder
