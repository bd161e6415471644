"""Measure with `python -m bench`; print each figure with its target, and assert nothing.

A figure is a ratio within one run wherever possible, because machines differ. By default all parts
run; `--only` chooses some of them:
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.billing import BillingBench
from bench.figures import Figure, table
from bench.floods import floods
from bench.models import models
from bench.predictions import drift, predictions, tracing
from bench.swaps import swaps
from bench.training import training
from harness.mariadb import running_server
from harness.services import ServiceProcesses, running_services


@dataclass
class Run:
    """The state that the parts of one run share."""

    platform: ServiceProcesses
    events: int

    @cached_property
    def billing(self) -> BillingBench:
        """Shared by both billing parts, because the sequences of its events are consecutive."""
        return BillingBench(self.platform, say=_print)


async def _ingest(run: Run) -> list[Figure]:
    return [*await run.billing.ingest(stored=run.events), run.billing.usage(stored=run.events)]


async def _leases(run: Run) -> list[Figure]:
    return run.billing.leases()


TRAINING = "training"
PARTS: dict[str, tuple[str, Callable[[Run], Awaitable[list[Figure]]]]] = {
    "predictions": (
        "requests/s against a bare app with the same model",
        lambda run: predictions(run.platform),
    ),
    "floods": (
        "latency of /healthz during a flood of large invalid bodies",
        lambda run: floods(run.platform),
    ),
    "drift": ("requests/s with drift sampling and without", lambda run: drift(run.platform)),
    "tracing": ("requests/s with tracing and without", lambda run: tracing(run.platform)),
    "swaps": ("failures and latency while releases go live", lambda run: swaps(run.platform)),
    "models": ("cost of a poll, and delay of a rollback", lambda run: models(run.platform)),
    "ingest": ("rows/s stored by billing against raw inserts, and GET /usage", _ingest),
    "leases": ("time of one call for a thousand leases", _leases),
}
"""All parts except training, in the order in which they run: a description, and the function."""


def main() -> None:
    """Measure and print; fail only if a benchmark cannot run."""
    options = _parse()
    parts = options.only or [TRAINING, *PARTS]
    figures: list[Figure] = []
    if TRAINING in parts:
        _print("measuring training")
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
            figures.append(training(Path(folder)))
    platform_parts = [part for part in PARTS if part in parts]
    if platform_parts:
        figures += asyncio.run(_measure(platform_parts, events=options.events))
    for line in table(figures):
        _print(line)


def _parse() -> argparse.Namespace:
    purposes = {TRAINING: "memory of a training relative to its data"} | {
        name: purpose for name, (purpose, _) in PARTS.items()
    }
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="\n".join(
            [str(__doc__), *(f"  {name:<12}{purpose}" for name, purpose in purposes.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        choices=list(purposes),
        metavar="PART",
        action="append",
        help="run only this part; may be repeated",
    )
    parser.add_argument(
        "--events",
        type=int,
        default=5_000_000,
        metavar="N",
        help="usage events to store before ingest is measured again (default: %(default)s)",
    )
    return parser.parse_args()


async def _measure(parts: Sequence[str], *, events: int) -> list[Figure]:
    """Run parts one after the other on one platform with its own database server."""
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder,
        running_server("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M") as server,
        running_services(Path(folder) / "home", server) as platform,
    ):
        run = Run(platform, events)
        for part in parts:
            _print(f"measuring {part}")
            _, measure = PARTS[part]
            figures += await measure(run)
    return figures


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
