"""Call a service with both clients, on the oldest supported Python: `old_python.py URL`."""

import asyncio
import sys

from tollgate_client import AsyncTollgate, InvalidInputError, Tollgate

ROWS: list[dict[str, object]] = [{"a": 1, "b": float("nan")}, {"a": 2, "b": "x"}]


async def call() -> list[object]:
    async with AsyncTollgate("key", sys.argv[1]) as tollgate:
        prediction = await tollgate.predict("wine", ROWS)
        return [*prediction.predictions, prediction.receipt.amount]


with Tollgate("key", sys.argv[1]) as tollgate:
    first = tollgate.predict("wine", ROWS, probabilities=True)
    explained = tollgate.explain("wine", ROWS)
    try:
        tollgate.predict("wine", [[float("inf")]])
    except InvalidInputError as error:
        refused = error.errors

sys.stdout.write(
    f"{first.predictions} {len(explained.explanations)} {refused} {asyncio.run(call())}"
)
