"""How late the event loop is: what every request waits for before anything else."""

import asyncio

from prometheus_client import CollectorRegistry

from services.common.telemetry.series import LoopHistogram

PERIOD_S = 0.02

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class LoopLag:
    """Measures by how much the event loop misses a timer that is due every `period_s` seconds.

    A period that the loop misses completely is not made up for, so a long pause counts once.
    """

    def __init__(self, registry: CollectorRegistry, *, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._lag = LoopHistogram(
            "tollgate_inference_event_loop_lag_seconds",
            "Delay of the event loop, sampled 50 times a second.",
            buckets=_BUCKETS_S,
            registry=registry,
        ).labels()

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._period_s
            await asyncio.sleep(self._period_s)
            self._lag.observe(max(loop.time() - due, 0.0))
