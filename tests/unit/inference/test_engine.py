"""Slow predictions: they use all threads, and what waits for a thread runs together."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from registry.features import MATRIX, Arrays
from registry.records import Column, Signature
from registry.runtimes.runtime import InferenceResponse, ModelOutput, Runtime
from registry.runtimes.scikit_learn import PipelineRuntime
from services.common.errors import BodyInvalid
from services.inference.models.engine import INLINE_S, Engine, is_quick
from services.inference.models.latency import MAX_BATCH_ROWS, LatencyEstimate
from services.inference.models.table import LoadedModel

SLOW = LatencyEstimate(call_s=1.0, row_s=0.0)
WAIT_S = 30
WINES, LABELS = load_wine(return_X_y=True)
SIGNATURE = Signature(
    task="classification",
    target="wine",
    columns=[Column(name=f"c{i}", kind="number") for i in range(WINES.shape[1])],
    classes=[0, 1, 2],
)


class Pairs(Runtime):
    """A model whose calls wait for a second call; it counts the calls in progress."""

    def __init__(self) -> None:
        super().__init__(Signature(task="regression", target="y", columns=[], classes=None))
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._pair = threading.Barrier(2, timeout=WAIT_S)

    def compute(self, arrays: Arrays, *, probabilities: bool = False) -> ModelOutput:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._pair.wait()
        with self._lock:
            self._now -= 1
        return ModelOutput(predictions=np.zeros(len(arrays["x"])), probabilities=None)


class Forest(Runtime):
    """A random forest that waits for `gate` before each call; it notes the rows of each call."""

    def __init__(self) -> None:
        super().__init__(SIGNATURE)
        forest = RandomForestClassifier(n_estimators=20, random_state=0)
        self._runtime = PipelineRuntime(forest.fit(WINES, LABELS), SIGNATURE)
        self.gate = threading.Event()
        self.calls: list[int] = []

    def compute(self, arrays: Arrays, *, probabilities: bool = False) -> ModelOutput:
        rows = arrays[MATRIX]
        self.calls.append(len(rows))
        if not self.gate.wait(WAIT_S):
            raise TimeoutError
        with np.errstate(invalid="ignore"):
            labels, scores = self._runtime.compute(
                {MATRIX: np.where(np.isinf(rows), 0, rows)}, probabilities=probabilities
            )
        extreme = np.isinf(rows).any(axis=1)
        return ModelOutput(np.where(extreme, np.inf, labels) if extreme.any() else labels, scores)

    def expected(self, rows: Arrays) -> InferenceResponse:
        """Return the answer to the rows alone."""
        return self._runtime.run(rows, probabilities=True)


@pytest.fixture(scope="module")
def trained() -> Forest:
    return Forest()


@pytest.fixture
def forest(trained: Forest) -> Forest:
    """Return the forest with its gate closed."""
    trained.gate.clear()
    trained.calls.clear()
    return trained


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """Return an engine of one thread."""
    engine = Engine(threads=1)
    yield engine
    engine.close()


def loaded(runtime: Runtime, latency: LatencyEstimate = SLOW) -> LoadedModel:
    return LoadedModel(Mock(), Mock(), runtime, latency, size=0)


def some(*positions: int) -> Arrays:
    """Return rows of the wine data."""
    return {MATRIX: WINES[list(positions)].astype(np.float32)}


def start(
    engine: Engine, model: LoadedModel, arrays: Arrays, **options: Any
) -> "asyncio.Task[InferenceResponse]":
    wanted = {"probabilities": True, **options}
    return asyncio.create_task(engine.predict(model, arrays, rows=len(arrays[MATRIX]), **wanted))


async def until_running(forest: Forest) -> None:
    """Return once the thread has begun its first call and all other calls wait."""
    async with asyncio.timeout(WAIT_S):
        while not forest.calls:
            await asyncio.sleep(0.001)


class TestThreads:
    async def test_slow_predictions_use_all_configured_threads(self) -> None:
        engine, pairs = Engine(threads=2), Pairs()
        model = loaded(pairs, LatencyEstimate(call_s=1.0, row_s=1.0))
        one = {"x": np.zeros(1)}

        answers = await asyncio.gather(
            *(engine.predict(model, one, rows=1, probabilities=False) for _ in range(32))
        )

        assert len(answers) == 32
        assert pairs.most == 2
        engine.close()

    def test_only_calls_that_cost_less_than_a_thread_run_on_the_event_loop(self) -> None:
        model = loaded(Pairs(), LatencyEstimate(call_s=INLINE_S / 2, row_s=INLINE_S / 10))

        assert [is_quick(model, rows) for rows in (1, 5, 6)] == [True, True, False]


class TestBatches:
    async def test_a_call_never_waits_while_a_thread_is_idle(
        self, engine: Engine, forest: Forest
    ) -> None:
        forest.gate.set()
        model = loaded(forest)

        for position in range(3):
            await start(engine, model, some(position))

        assert forest.calls == [1, 1, 1]

    async def test_what_waits_for_a_thread_runs_as_one_call(
        self, engine: Engine, forest: Forest
    ) -> None:
        model = loaded(forest)
        answers = [start(engine, model, some(position)) for position in range(9)]
        await until_running(forest)

        forest.gate.set()
        await asyncio.gather(*answers)

        assert forest.calls == [1, 8]

    async def test_calls_of_other_versions_and_with_other_outputs_run_apart(
        self, engine: Engine, forest: Forest
    ) -> None:
        one, other = loaded(forest), loaded(forest)
        first = start(engine, one, some(0))
        await until_running(forest)
        rest = [
            start(engine, model, some(position), probabilities=probabilities)
            for position in (1, 2)
            for model in (one, other)
            for probabilities in (True, False)
        ]
        await asyncio.sleep(0)

        forest.gate.set()
        answers = await asyncio.gather(first, *rest)

        assert forest.calls == [1, 2, 2, 2, 2]
        assert [answer.probabilities is None for answer in answers[1:]] == [False, True] * 4

    async def test_no_more_rows_run_together_than_the_limit(
        self, engine: Engine, forest: Forest
    ) -> None:
        model = loaded(forest)
        half, most = MAX_BATCH_ROWS // 2, MAX_BATCH_ROWS
        sizes = [1, half, half, 1, 2 * most, 1]
        answers = [start(engine, model, some(*([0] * rows))) for rows in sizes]
        await until_running(forest)

        forest.gate.set()
        await asyncio.gather(*answers)

        assert forest.calls == [1, 2 * half, 1, 2 * most, 1]

    @pytest.mark.parametrize(
        ("call_s", "row_s", "rows"),
        [(1.0, 0.0, MAX_BATCH_ROWS), (0.008, 0.001, 8), (0.001, 0.001, 5), (0.0, 3.0, 1)],
    )
    def test_rows_that_run_together_take_no_longer_than_they_save(
        self, call_s: float, row_s: float, rows: int
    ) -> None:
        assert LatencyEstimate(call_s=call_s, row_s=row_s).rows_at_once() == rows


class TestAnswers:
    @pytest.mark.parametrize("seed", range(2))
    async def test_concurrent_callers_get_exactly_the_answers_to_their_own_rows(
        self, engine: Engine, forest: Forest, seed: int
    ) -> None:
        chance = random.Random(seed)
        forest.gate.set()
        model = loaded(forest)
        asked = [
            some(*chance.choices(range(len(WINES)), k=chance.randrange(1, 9))) for _ in range(120)
        ]
        answers: list[asyncio.Task[InferenceResponse]] = []
        for rows in asked:
            answers.append(start(engine, model, rows))
            if chance.random() < 0.1:
                await asyncio.sleep(0.002)
        cancelled = set(chance.sample(range(len(answers)), 20))
        for number in cancelled:
            answers[number].cancel()

        outcomes = await asyncio.gather(*answers, return_exceptions=True)

        assert len(forest.calls) < len(answers)
        for number, (rows, outcome) in enumerate(zip(asked, outcomes, strict=True)):
            if number not in cancelled or not isinstance(outcome, asyncio.CancelledError):
                assert outcome == forest.expected(rows)

    async def test_a_cancelled_caller_affects_no_other(
        self, engine: Engine, forest: Forest
    ) -> None:
        model = loaded(forest)
        answers = [start(engine, model, some(position)) for position in range(5)]
        await until_running(forest)
        answers[0].cancel()  # runs
        answers[2].cancel()  # waits
        await asyncio.sleep(0)

        forest.gate.set()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)

        assert forest.calls == [1, 3]
        for position in (1, 3, 4):
            assert outcomes[position] == forest.expected(some(position))

    async def test_values_without_a_finite_output_fail_only_their_own_caller(
        self, engine: Engine, forest: Forest
    ) -> None:
        model = loaded(forest)
        extreme = {MATRIX: np.full((2, WINES.shape[1]), np.inf, dtype=np.float32)}
        asked: Sequence[Arrays] = [some(0), some(1, 2), extreme, some(3)]
        answers = [start(engine, model, rows, probabilities=False) for rows in asked]
        await until_running(forest)

        forest.gate.set()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)

        assert isinstance(outcomes[2], BodyInvalid)
        for number in (0, 1, 3):
            answer = cast(InferenceResponse, outcomes[number])
            assert answer.predictions == forest.expected(asked[number]).predictions

    async def test_a_closed_engine_cancels_what_waits(self, forest: Forest) -> None:
        engine, model = Engine(threads=1), loaded(forest)
        answers = [start(engine, model, some(position)) for position in range(3)]
        await until_running(forest)

        engine.close()
        forest.gate.set()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)

        assert outcomes[0] == forest.expected(some(0))
        assert all(isinstance(each, asyncio.CancelledError) for each in outcomes[1:])


class Unwanted(Exception):
    """What a failed check raises."""


def unwanted() -> None:
    raise Unwanted


class TestChecks:
    async def test_work_that_is_not_wanted_any_more_is_dropped_before_it_runs(
        self, engine: Engine, forest: Forest
    ) -> None:
        model = loaded(forest)
        checks = [unwanted, unwanted, None, unwanted]
        answers = [start(engine, model, some(i), check=check) for i, check in enumerate(checks)]
        await until_running(forest)

        forest.gate.set()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)

        assert forest.calls == [1, 1]
        assert outcomes[0] == forest.expected(some(0))  # a thread was idle
        assert outcomes[2] == forest.expected(some(2))
        assert isinstance(outcomes[1], Unwanted)
        assert isinstance(outcomes[3], Unwanted)
