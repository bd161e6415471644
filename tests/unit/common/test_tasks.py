"""Background tasks end when they are cancelled, even if a cancellation gets lost."""

import asyncio

from services.common.tasks import end_tasks


async def test_a_task_that_swallows_its_first_cancellation_ends() -> None:
    cancellations = 0

    async def work() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancellations += 1

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end_tasks([task], again_s=0.01)

    assert task.done()
    assert cancellations == 2


async def test_the_failure_of_a_task_is_left_to_its_owner() -> None:
    async def fail() -> None:
        raise ValueError("no")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end_tasks([task])

    assert isinstance(task.exception(), ValueError)


async def test_no_tasks_end_at_once() -> None:
    await end_tasks([])
