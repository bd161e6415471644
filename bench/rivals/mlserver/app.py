"""MLServer: its own scikit-learn runtime, in one process (its workers only cost time here)."""

import json
import os
import socket
import tempfile
from pathlib import Path

import estimator


def free_port() -> int:
    """Return a free port for one of the listeners that are not measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


folder = Path(tempfile.mkdtemp(prefix="tollgate-bench-", dir=os.environ["BENCH_FOLDER"]))
server = {
    "host": "127.0.0.1",
    "http_port": estimator.PORT,
    "grpc_port": free_port(),
    "metrics_port": free_port(),
    "parallel_workers": 0,
    "debug": False,
}
model = {
    "name": "model",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": estimator.MODEL},
}
if estimator.BATCHING:
    model |= {"max_batch_size": 32, "max_batch_time": 0.005}
(folder / "settings.json").write_text(json.dumps(server))
(folder / "model-settings.json").write_text(json.dumps(model))
os.execvp("mlserver", ["mlserver", "start", str(folder)])
