"""Ray Serve: one replica on a local cluster, with batching or without."""

import signal
import threading

import estimator
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Measured:
    """The model."""

    def __init__(self) -> None:
        self._predict = estimator.load()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def _together(self, rows: list) -> list:
        return self._predict(rows).tolist()

    async def __call__(self, request: Request) -> dict:
        """Answer `{"instances": [[…]]}`."""
        rows = (await request.json())["instances"]
        if estimator.BATCHING:
            return {"predictions": [await self._together(row) for row in rows]}
        return {"predictions": self._predict(rows).tolist()}


if __name__ == "__main__":
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ray.init(num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": estimator.PORT})
    serve.run(Measured.bind())
    stop.wait()
    serve.shutdown()
    ray.shutdown()
