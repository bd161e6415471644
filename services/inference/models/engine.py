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

from registry.explanations import Explanations
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
        raise _too_extreme() from error


def explain_rows(model: LoadedModel, arrays: Arrays) -> InferenceResponse:
    """Predict rows and explain the predictions, in the calling thread.

    Raises:
        BodyInvalid: the values are so extreme that the output is not finite.
    """
    explainer, classes = model.explainer, model.manifest.signature.classes
    if explainer is None:
        raise ValueError("the version has no explainer")
    response = run_model(model, arrays, probabilities=explainer.needs_probabilities)
    rows = len(response.predictions)
    chosen, served = np.zeros(rows, dtype=np.int64), None
    if classes is None:
        served = np.array(response.predictions, dtype=np.float64)
    else:
        chosen = np.array([classes.index(label) for label in response.predictions])
        if response.probabilities is not None:
            served = np.array(response.probabilities)[np.arange(rows), chosen]
    with np.errstate(all="ignore"):
        explanations = explainer.explain(arrays, chosen, served)
    if not _is_finite(explanations):
        raise _too_extreme()
    return response._replace(explanations=explanations)


def _is_finite(explanations: Explanations) -> bool:
    return bool(
        np.isfinite(explanations.base).all() and np.isfinite(explanations.contributions).all()
    )


def _too_extreme() -> BodyInvalid:
    message = "The values are too extreme: the model's output is not finite."
    return BodyInvalid([{"loc": ["body"], "msg": message}])


Run = Callable[[LoadedModel, Arrays], InferenceResponse]
PREDICT: Run = partial(run_model, probabilities=False)
PREDICT_PROBABILITIES: Run = partial(run_model, probabilities=True)


def run_together(
    model: LoadedModel, requests: Sequence[tuple[Arrays, int]], run: Run
) -> list[InferenceResponse]:
    """Run several requests, given as their arrays and number of rows, as one call of `run`.

    Raises:
        BodyInvalid: the output of one of them is not finite.
    """
    first = requests[0][0]
    if len(requests) == 1:
        return [run(model, first)]
    joined = {name: np.concatenate([arrays[name] for arrays, _ in requests]) for name in first}
    whole = run(model, joined)
    responses = []
    start = 0
    for _, rows in requests:
        end = start + rows
        scores = None if whole.probabilities is None else whole.probabilities[start:end]
        responses.append(InferenceResponse(whole.predictions[start:end], scores))
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

_Waiting = OrderedDict[tuple[int, Run], deque[_Call]]
"""Calls that may run together, by the identity of their version and what to run. The versions take
turns."""


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
        run = PREDICT_PROBABILITIES if probabilities else PREDICT
        return await self._submit(model, arrays, rows, run, check)

    async def explain(
        self,
        model: LoadedModel,
        arrays: Arrays,
        *,
        rows: int,
        check: Callable[[], None] | None = None,
    ) -> InferenceResponse:
        """Predict and explain rows in a thread; the arguments and errors are those of `predict`."""
        return await self._submit(model, arrays, rows, explain_rows, check)

    async def _submit(
        self,
        model: LoadedModel,
        arrays: Arrays,
        rows: int,
        run: Run,
        check: Callable[[], None] | None,
    ) -> InferenceResponse:
        """Queue a call for a thread, and wait for its outcome."""
        answer: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        calls = self._waiting.setdefault((id(model), run), deque())
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
            (version, run), waiting = self._waiting.popitem(last=False)
            # The rows of an explanation take so long that joining calls would only delay them.
            calls = _take(waiting, one=run is explain_rows)
            if waiting:
                self._waiting[version, run] = waiting  # behind the other versions
            if calls:
                self._idle -= 1
                running = asyncio.get_running_loop().run_in_executor(self._pool, _run, calls, run)
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


def _take(waiting: deque[_Call], *, one: bool) -> list[_Call]:
    """Remove the next calls to run together: at least one, if any is still wanted."""
    calls: list[_Call] = []
    rows = 0
    while waiting and (
        not calls or (not one and rows + waiting[0].rows <= waiting[0].model.latency.rows_at_once())
    ):
        call = waiting.popleft()
        if call.is_wanted():
            calls.append(call)
            rows += call.rows
    return calls


def _drop(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.answer.cancel()


def _run(calls: Sequence[_Call], run: Run) -> list[_Outcome]:
    """Run calls of one version as one, in the calling thread; return the outcome of each."""
    if len(calls) > 1:
        with suppress(Exception):  # of one of the calls, which must not fail the others
            requests = [(call.arrays, call.rows) for call in calls]
            return [*run_together(calls[0].model, requests, run)]
    return [_run_alone(call, run) for call in calls]


def _run_alone(call: _Call, run: Run) -> _Outcome:
    try:
        return run(call.model, call.arrays)
    except BaseException as error:  # passed on to the caller
        return error
