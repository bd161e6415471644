"""Run models: quick calls on the event loop, slow ones in a thread pool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse, OutputNotFinite
from services.common.errors import BodyInvalid
from services.inference.models.table import LoadedModel

INLINE_S = 0.0005
"""The longest call, in seconds, that runs on the event loop; about five thread switches."""


def is_quick(model: LoadedModel, rows: int) -> bool:
    """Return whether a call with this many rows costs less than handing it to a thread."""
    return model.latency.expected_s(rows) <= INLINE_S


def run_model(model: LoadedModel, arrays: Arrays, *, probabilities: bool) -> InferenceResponse:
    """Run a model in the calling thread.

    Raises:
        BodyInvalid: the values are so extreme that the output is not finite.
    """
    try:
        return model.runtime.run(arrays, probabilities=probabilities)
    except OutputNotFinite as error:
        message = "The values are too extreme: the model's output is not finite."
        raise BodyInvalid([{"loc": ["body"], "msg": message}]) from error


class Engine:
    """Owns the threads that run slow predictions."""

    def __init__(self, *, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")

    async def predict(
        self, model: LoadedModel, arrays: Arrays, *, rows: int, probabilities: bool
    ) -> InferenceResponse:
        """Run a quick call on the event loop and a slow one in a thread.

        Raises:
            BodyInvalid: the values are so extreme that the output is not finite.
        """
        if is_quick(model, rows):
            return run_model(model, arrays, probabilities=probabilities)
        loop = asyncio.get_running_loop()
        call = partial(run_model, model, arrays, probabilities=probabilities)
        return await loop.run_in_executor(self._pool, call)

    def close(self) -> None:
        """Drop the waiting work; do not wait for what is running."""
        self._pool.shutdown(wait=False, cancel_futures=True)
