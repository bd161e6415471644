"""Where predictions are computed: quick ones at once, slow ones in as many threads as are set."""

import asyncio
import threading

from services.inference.engine.runtime import Answer, Engine, Pace
from services.inference.models.inputs import Arrays

SLOW = Pace(call_s=1.0, row_s=0.0)


class Pairs:
    """A model each of whose calls goes on only beside another; it counts those under way."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._pair = threading.Barrier(2, timeout=30)

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> Answer:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._pair.wait()
        with self._lock:
            self._now -= 1
        return Answer(predictions=[0], probabilities=None)


class TestThreads:
    async def test_as_many_slow_predictions_are_computed_at_once_as_are_set(self) -> None:
        engine, model = Engine(threads=2), Pairs()

        answers = await asyncio.gather(
            *(engine.predict(model, SLOW, {}, rows=1, probabilities=False) for _ in range(8))
        )

        assert len(answers) == 8
        assert model.most == 2
        engine.close()
