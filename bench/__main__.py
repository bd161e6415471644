"""Measure with `python -m bench`; print each figure with its target, and assert nothing.

A figure is a ratio within one run wherever possible, because machines differ. By default all parts
run; `--only` chooses some of them, and `--quick` compares predictions with the limit:
"""

import argparse
import asyncio
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench import cores, load, results
from bench.accounts import accounts, store_short_key
from bench.billing import BillingBench
from bench.comparison import WrongAnswer
from bench.credentials import credentials
from bench.explanations import explanations
from bench.figures import Figure, table
from bench.floods import floods
from bench.importing import importing
from bench.load import RequestsFailed
from bench.logins import logins
from bench.models import models
from bench.monitoring import drift, tracing
from bench.overload import overload
from bench.pages import pages
from bench.predictions import forest, one_row
from bench.rivals.comparison import RivalsResult, compare_rivals
from bench.sharing import sharing
from bench.startup import startup
from bench.sustained import sustained
from bench.swaps import swaps
from bench.timing import Timing
from bench.training import training
from harness.mariadb import running_server
from harness.services import SERVICES, ServiceProcesses, new_services

QUICK = ("predictions",)


@dataclass
class Outcome:
    """What was measured so far.

    Args:
        failed: the parts that could not be measured.
    """

    figures: list[Figure] = field(default_factory=list)
    rivals: RivalsResult | None = None
    failed: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The state that the parts on one platform share."""

    platform: ServiceProcesses
    timing: Timing
    events: int
    outcome: Outcome

    @cached_property
    def billing(self) -> BillingBench:
        """Shared by both billing parts, because the sequences of its events are consecutive."""
        return BillingBench(self.platform, say=self.timing.say)


Measure = Callable[[Run], list[Figure]]


def _rivals(run: Run) -> list[Figure]:
    figures, run.outcome.rivals = compare_rivals(run.platform, run.timing)
    return figures


def _ingest(run: Run) -> list[Figure]:
    figures = asyncio.run(run.billing.ingest(stored=run.events))
    usage, export = run.billing.usage, run.billing.export
    return [*figures, usage(stored=run.events), export(stored=run.events)]


def _pages(run: Run) -> list[Figure]:
    run.billing.store(run.events)
    return pages(run.platform, run.timing, events=run.billing.stored)


def _timed(measure: Callable[[ServiceProcesses, Timing], list[Figure]]) -> Measure:
    return lambda run: measure(run.platform, run.timing)


def _awaited(measure: Callable[[ServiceProcesses], Coroutine[None, None, list[Figure]]]) -> Measure:
    return lambda run: asyncio.run(measure(run.platform))


Parts = dict[str, tuple[str, Measure]]
ALONE: dict[str, tuple[str, Callable[[Path], Figure]]] = {
    "training": ("memory of a training relative to its data", training),
    "importing": ("time to import a large model", importing),
}
"""Parts that need no platform, but an empty state folder each; they run first."""
ON_ONE_CORE: Parts = {
    "predictions": ("one row against a bare app with the same model", _timed(one_row)),
    "forest": ("a random forest, one row and many, against the bare app", _timed(forest)),
    "explanations": (
        "a forest's explanations and intervals against its predictions",
        _timed(explanations),
    ),
    "rivals": ("one row against other model servers", _rivals),
    "accounts": ("one row from many accounts against one", _timed(accounts)),
    "sharing": ("CPU time of two processes with one account against one", _timed(sharing)),
    "sustained": ("a minute at full load: backlog, served and billed", _timed(sustained)),
    "overload": ("four times the capacity: answered, refused, memory", _timed(overload)),
    "startup": ("time from start to ready, and idle memory", _timed(startup)),
    "drift": ("requests/s with drift sampling and without", _timed(drift)),
    "tracing": ("requests/s with tracing and without", _timed(tracing)),
}
"""Parts that measure a process on a core of its own, in the order in which they run."""
ON_ALL_CORES: Parts = {
    "credentials": (
        "a check of known credentials, and 10,000 revocations",
        _awaited(credentials),
    ),
    "floods": ("latency of /healthz during a flood of large invalid bodies", _awaited(floods)),
    "swaps": ("failures and latency while releases go live", _awaited(swaps)),
    "models": ("cost of a poll, and delay of a rollback", _awaited(models)),
    "ingest": (
        "rows/s stored by billing against raw inserts, GET /usage, and a month as CSV",
        _ingest,
    ),
    "leases": ("time of one call for a thousand leases", lambda run: run.billing.leases()),
    "pages": ("weight, time and memory of the console's pages", _pages),
    "logins": ("sign-ins and tokens against bare argon2 and RS256", _timed(logins)),
}
"""Parts that measure the platform on the whole machine."""
ON_NEW_BOOKS: Parts = {
    "closing": (
        "closing a month, a preview and verify",
        lambda run: run.billing.closing(events=run.events),
    ),
}
"""Parts that verify the books; the others leave events that are not in the ledger."""


def main() -> None:
    """Measure and print; fail only if a benchmark cannot run."""
    options = _parse()
    timing = _timing(options)
    if not load.has_wrk():
        timing.say(load.NO_WRK)
    outcome = _measure(_chosen(options), timing, events=options.events)
    for line in table(outcome.figures):
        sys.stdout.write(line + "\n")
    if options.results is not None:
        command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
        took_s = time.perf_counter() - timing.started
        results.write(
            options.results,
            results.Results(outcome.figures, outcome.rivals, timing, command, took_s),
        )
        timing.say(f"written to {options.results}")
    if outcome.failed:
        sys.exit(f"error: could not measure {', '.join(outcome.failed)}")


def _parse() -> argparse.Namespace:
    purposes = {name: purpose for name, (purpose, _) in ALONE.items()} | {
        name: purpose for name, (purpose, _) in (ON_ONE_CORE | ON_ALL_CORES | ON_NEW_BOOKS).items()
    }
    defaults = Timing()
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
    parser.add_argument("--quick", action="store_true", help=f"run only {', '.join(QUICK)}")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="also write RESULTS.md and results.svg there",
    )
    for name, of, default in (
        ("seconds", "one measurement", defaults.seconds),
        ("rival-seconds", "one measurement beside the rivals", defaults.rival_s),
        ("sustained-seconds", "full load", defaults.sustained_s),
        ("overload-seconds", "overload", defaults.overload_s),
    ):
        parser.add_argument(
            f"--{name}", type=float, default=default, metavar="S", help=f"of {of} (%(default)g)"
        )
    for name, of, default_count in (
        ("repetitions", "measurements per figure", defaults.repetitions),
        ("accounts", "accounts and tokens", defaults.accounts),
        ("events", "usage events to store before ingest is measured again", 1_000_000),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default_count, metavar="N", help=f"{of} (%(default)d)"
        )
    return parser.parse_args()


def _timing(options: argparse.Namespace) -> Timing:
    return Timing(
        seconds=options.seconds,
        rival_s=options.rival_seconds,
        repetitions=options.repetitions,
        sustained_s=options.sustained_seconds,
        overload_s=options.overload_seconds,
        accounts=options.accounts,
    )


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the parts to run, in their order."""
    parts = [*ALONE, *ON_ONE_CORE, *ON_ALL_CORES, *ON_NEW_BOOKS]
    wanted = options.only or (QUICK if options.quick else parts)
    return [part for part in parts if part in wanted]


def _measure(parts: Sequence[str], timing: Timing, *, events: int) -> Outcome:
    """Run parts, those of each kind on a platform of their own."""
    outcome = Outcome()
    for part in [part for part in parts if part in ALONE]:
        timing.say(f"measuring {part}")
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
            outcome.figures.append(ALONE[part][1](Path(folder)))
    if on_one_core := [part for part in parts if part in ON_ONE_CORE]:
        with cores.beside_the_server(), _platform("auth", "billing") as platform:
            _run_parts(on_one_core, ON_ONE_CORE, Run(platform, timing, events, outcome))
    if on_all_cores := [part for part in parts if part in ON_ALL_CORES]:
        with _platform(*SERVICES) as platform:
            _run_parts(on_all_cores, ON_ALL_CORES, Run(platform, timing, events, outcome))
    if on_new_books := [part for part in parts if part in ON_NEW_BOOKS]:
        with _platform("auth", "billing") as platform:
            _run_parts(on_new_books, ON_NEW_BOOKS, Run(platform, timing, events, outcome))
    return outcome


def _run_parts(names: Sequence[str], parts: Parts, run: Run) -> None:
    """Run parts one after the other; one that fails is noted, and the others still count."""
    for name in names:
        run.timing.say(f"measuring {name}")
        _, measure = parts[name]
        try:
            run.outcome.figures += measure(run)
        except (RequestsFailed, WrongAnswer, AssertionError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:300]
            run.timing.say(f"{name} failed: {detail}")
            run.outcome.figures.append(Figure(f"{name}: failed", None, "", detail))
            run.outcome.failed.append(name)


@contextmanager
def _platform(*services: str) -> Iterator[ServiceProcesses]:
    """Run services of a new platform with its own database server."""
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder,
        running_server("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M") as server,
        new_services(Path(folder) / "home", server) as platform,
    ):
        store_short_key(platform.home)
        platform.begin(*services)
        yield platform


if __name__ == "__main__":
    main()
