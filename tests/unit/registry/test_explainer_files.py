"""Explainer files are read by several threads, but only one at a time parses arrays."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from registry.explain.artefact import load_explainer, pack_exact
from registry.explain.linear import Linear
from registry.features import MATRIX, Arrays
from registry.records import Column, Signature
from registry.runtimes.runtime import ModelOutput, Runtime

SIGNATURE = Signature(
    task="regression", target="y", columns=[Column(name="x", kind="number")], classes=None
)
LINEAR = Linear(weights=np.ones((1, 1)), intercepts=np.zeros(1), mean=np.zeros(1))


class Doubling(Runtime):
    def compute(self, arrays: Arrays, *, probabilities: bool = False) -> ModelOutput:
        return ModelOutput(arrays[MATRIX].ravel() * 2, None)


def test_only_one_thread_parses_arrays_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Lock()
    load = np.load

    @contextmanager
    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        assert inside.acquire(blocking=False)
        try:
            time.sleep(0.01)
            with load(*args, **kwargs) as file:
                yield file
        finally:
            inside.release()

    monkeypatch.setattr(np, "load", watched)
    packed = pack_exact(LINEAR, link="identity", sources=np.zeros(1, dtype=np.int64), encoder=None)

    def read(_: int) -> None:
        load_explainer(packed, SIGNATURE, Doubling(SIGNATURE), lambda _: {})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read, range(8)))
