"""Run chaos with `python -m chaos`.

Kills the database, billing and inference at random under load, then checks that what was served is
what was billed. The exit code is 1 if anything does not add up.

A seed determines which processes are killed, and in which order. Their exact timing still
depends on the machine, so retry a failing seed several times.
"""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from chaos.run import Report, run


def main() -> int:
    """Run once; return exit code 1 if anything does not add up."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="which processes are killed (default: random)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to kill processes (default: %(default)g; a full run takes 1000)",
    )
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    _print(f"seed {seed}, {options.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="tollgate-chaos-") as folder:
        report = run(seed=seed, seconds=options.seconds, home=Path(folder) / "home", say=_print)
    for line in table(report):
        _print(line)
    return 1 if report.differences else 0


def table(report: Report) -> list[str]:
    """Return the lines of the summary."""
    rows = {
        "seed": report.seed,
        "kills": _counts(report.kills),
        "answers": _counts(report.answers),
        "served": f"{report.served} keys",
        "journalled": f"{report.journalled} lines, all arrived",
        "billed": f"{report.billed} receipts",
        "result": "everything adds up" if not report.differences else "DIFFERENCES",
    }
    if report.differences:
        del rows["journalled"]
    return [f"  {name:<12}{value}" for name, value in rows.items()] + [
        f"  - {difference}" for difference in report.differences
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
