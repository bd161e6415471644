"""Run models: quick calls on the event loop, slow ones in a thread pool.

While all threads are busy, calls wait. A thread that becomes free runs everything that waits for
one version, up to a number of rows, as one call. So a call never waits for others to join it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse, OutputNotFinite
from services.common.errors import BodyInvalid
from services.inference.models.table import LoadedModel

INLINE_S = 0.0002
"""The longest call, in seconds, that runs on the event loop; about two thread switches."""


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


def run_together(
    model: LoadedModel, requests: Sequence[tuple[Arrays, int]], *, probabilities: bool
) -> list[InferenceResponse]:
    """Run several requests, given as their arrays and number of rows, as one call.

    Raises:
        BodyInvalid: the output of one of them is not finite.
    """
    first = requests[0][0]
    if len(requests) == 1:
        return [run_model(model, first, probabilities=probabilities)]
    joined = {name: np.concatenate([arrays[name] for arrays, _ in requests]) for name in first}
    predictions, scores = run_model(model, joined, probabilities=probabilities)
    responses = []
    start = 0
    for _, rows in requests:
        end = start + rows
        part = None if scores is None else scores[start:end]
        responses.append(InferenceResponse(predictions[start:end], part))
        start = end
    return responses


@dataclass(slots=True, eq=False)
class _Call:
    model: LoadedModel
    arrays: Arrays
    rows: int
    check: Callable[[], None] | None
    answer: asyncio.Future[InferenceResponse]

    def is_wanted(self) -> bool:
        """Return whether to run it; if its check fails, the caller gets the error."""
        if self.answer.done():  # its caller was cancelled
            return False
        try:
            if self.check is not None:
                self.check()
        except Exception as error:
            self.answer.set_exception(error)
            return False
        return True


_Outcome = InferenceResponse | BaseException

_Waiting = OrderedDict[tuple[int, bool], deque[_Call]]
"""Calls that may run together, by the identity of their version and whether they want
probabilities. The versions take turns."""


class Engine:
    """Owns the threads that run slow predictions."""

    def __init__(self, *, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")
        self._idle = threads
        self._waiting: _Waiting = OrderedDict()

    async def predict(
        self,
        model: LoadedModel,
        arrays: Arrays,
        *,
        rows: int,
        probabilities: bool,
        check: Callable[[], None] | None = None,
    ) -> InferenceResponse:
        """Run a quick call on the event loop and a slow one in a thread.

        Args:
            check: raises an exception if the call is not wanted any more; used after a wait.

        Raises:
            BodyInvalid: the values are so extreme that the output is not finite.
            Exception: whatever `check` raises.
        """
        if is_quick(model, rows):
            return run_model(model, arrays, probabilities=probabilities)
        answer: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        calls = self._waiting.setdefault((id(model), probabilities), deque())
        calls.append(_Call(model, arrays, rows, None if self._idle else check, answer))
        self._start()
        return await answer

    def close(self) -> None:
        """Drop the waiting work; do not wait for what is running."""
        for calls in self._waiting.values():
            _drop(calls)
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Give waiting calls to the idle threads."""
        while self._idle and self._waiting:
            (version, probabilities), waiting = self._waiting.popitem(last=False)
            calls = _take(waiting)
            if waiting:
                self._waiting[version, probabilities] = waiting  # behind the other versions
            if calls:
                self._idle -= 1
                run = partial(_run, calls, probabilities=probabilities)
                running = asyncio.get_running_loop().run_in_executor(self._pool, run)
                running.add_done_callback(partial(self._finish, calls))

    def _finish(self, calls: Sequence[_Call], running: asyncio.Future[list[_Outcome]]) -> None:
        """Answer the calls that a thread has run, and give it the next ones."""
        self._idle += 1
        if running.cancelled():  # the engine was closed
            _drop(calls)
            return
        for call, outcome in zip(calls, running.result(), strict=True):
            if call.answer.done():  # its caller was cancelled
                continue
            if isinstance(outcome, BaseException):
                call.answer.set_exception(outcome)
            else:
                call.answer.set_result(outcome)
        self._start()


def _take(waiting: deque[_Call]) -> list[_Call]:
    """Remove the next calls to run together: at least one, if any is still wanted."""
    calls: list[_Call] = []
    rows = 0
    while waiting and (
        not calls or rows + waiting[0].rows <= waiting[0].model.latency.rows_at_once()
    ):
        call = waiting.popleft()
        if call.is_wanted():
            calls.append(call)
            rows += call.rows
    return calls


def _drop(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.answer.cancel()


def _run(calls: Sequence[_Call], *, probabilities: bool) -> list[_Outcome]:
    """Run calls of one version as one, in the calling thread; return the outcome of each."""
    if len(calls) > 1:
        with suppress(Exception):  # of one of the calls, which must not fail the others
            requests = [(call.arrays, call.rows) for call in calls]
            return [*run_together(calls[0].model, requests, probabilities=probabilities)]
    return [_run_alone(call, probabilities=probabilities) for call in calls]


def _run_alone(call: _Call, *, probabilities: bool) -> _Outcome:
    try:
        return run_model(call.model, call.arrays, probabilities=probabilities)
    except BaseException as error:  # passed on to the caller
        return error
