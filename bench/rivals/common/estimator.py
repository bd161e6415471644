"""The measured model, as every rival loads it: a scikit-learn pipeline, or its export to ONNX.

It runs in the rivals' own environments and imports nothing of Tollgate.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

PORT = int(os.environ["BENCH_PORT"])
MODEL = os.environ["BENCH_MODEL"]
"""The path of `model.joblib` or `model.onnx`."""
BATCHING = os.environ["BENCH_BATCHING"] == "1"


def load() -> Callable[[Any], np.ndarray]:
    """Return a function from rows, nested lists or an array, to an array of labels."""
    if MODEL.endswith(".joblib"):
        import joblib

        estimator = joblib.load(MODEL)
        return lambda rows: estimator.predict(np.asarray(rows, np.float32))

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    name, label = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda rows: session.run([label], {name: np.asarray(rows, np.float32)})[0]
