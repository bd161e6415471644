"""The metric of event-loop lag shows what holds the loop."""

import asyncio
import time

from prometheus_client import CollectorRegistry

from services.inference.monitoring.loop_lag import LoopLag

NAME = "tollgate_inference_event_loop_lag_seconds"


async def test_work_that_holds_the_event_loop_is_counted_with_its_length() -> None:
    registry = CollectorRegistry()
    measuring = asyncio.create_task(LoopLag(registry, period_s=0.001).run())

    await asyncio.sleep(0.01)
    time.sleep(0.25)  # noqa: ASYNC251  # holds the loop on purpose
    await asyncio.sleep(0.01)
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)

    count = registry.get_sample_value(f"{NAME}_count") or 0
    within = registry.get_sample_value(f"{NAME}_bucket", {"le": "0.2"}) or 0
    assert count > within
    assert (registry.get_sample_value(f"{NAME}_sum") or 0) > 0.2
