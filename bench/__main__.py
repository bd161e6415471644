"""Run the benchmarks with `python -m bench`; show each figure with its target, assert nothing."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench.billing import BillingBench
from bench.figures import Figure, table
from bench.floods import floods
from bench.models import models
from bench.predictions import drift, predictions, tracing
from bench.swaps import swaps
from bench.training import training
from harness.mariadb import running_server
from harness.processes import processes

PARTS = (
    "training",
    "predictions",
    "floods",
    "drift",
    "tracing",
    "swaps",
    "models",
    "ingest",
    "leases",
)
PLATFORM = set(PARTS) - {"training"}


def main() -> None:
    """Measure and print; fail only if a benchmark cannot run."""
    options = argparse.ArgumentParser(prog="bench", description=__doc__)
    options.add_argument(
        "--events",
        type=int,
        default=5_000_000,
        help="how many events to store (default: %(default)s)",
    )
    options.add_argument(
        "--only", choices=PARTS, action="append", help="run only this part; may be repeated"
    )
    given = options.parse_args()
    parts = given.only or PARTS
    figures: list[Figure] = []
    if "training" in parts:
        _print("measuring training")
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
            figures.append(training(Path(folder)))
    if PLATFORM & set(parts):
        figures += asyncio.run(_measure(stored=given.events, parts=parts))
    for line in table(figures):
        _print(line)


async def _measure(*, stored: int, parts: tuple[str, ...]) -> list[Figure]:
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder,
        running_server("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M") as server,
        processes(Path(folder) / "home", server) as platform,
    ):
        if "predictions" in parts:
            _print("measuring predictions")
            figures.append(await predictions(platform))
        if "floods" in parts:
            _print("measuring floods")
            figures += await floods(platform)
        if "drift" in parts:
            _print("measuring drift")
            figures.append(await drift(platform))
        if "tracing" in parts:
            _print("measuring tracing")
            figures.append(await tracing(platform))
        if "swaps" in parts:
            _print("measuring swaps")
            figures += await swaps(platform)
        if "models" in parts:
            _print("measuring models")
            figures += await models(platform)
        billing = BillingBench(platform, say=_print)
        if "ingest" in parts:
            _print("measuring ingest")
            figures += await billing.ingest(stored=stored)
            figures.append(billing.usage(stored=stored))
        if "leases" in parts:
            figures += billing.leases()
    return figures


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
