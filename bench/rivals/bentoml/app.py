"""BentoML: a service with one worker, with its adaptive batching or without."""

import os
import sys

import bentoml
import estimator
import numpy as np

Rows = np.ndarray


@bentoml.service(workers=1)
class Measured:
    """The model; a batch is the rows of several requests, one after the other."""

    def __init__(self) -> None:
        self._predict = estimator.load()

    @bentoml.api(batchable=estimator.BATCHING, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: Rows) -> Rows:
        """Answer `{"rows": [[…]]}`."""
        return self._predict(rows)


if __name__ == "__main__":
    address = ("--host", "127.0.0.1", "--port", str(estimator.PORT))
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "app:Measured", *address])
