"""`python -m chaos --seed N --seconds 60`: a seed stands for who is killed, in which order.

How the load meets the kills is up to the machine, so a seed that failed is worth several tries.
"""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from chaos.run import Report, run


def main() -> int:
    """Exit code 1 if anything does not add up."""
    options = argparse.ArgumentParser(prog="chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=None, help="default: a random one")
    options.add_argument("--seconds", type=float, default=60.0, help="1000 is full length")
    given = options.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    _print(f"seed {seed}, {given.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="tollgate-chaos-") as folder:
        report = run(seed=seed, seconds=given.seconds, home=Path(folder) / "home", say=_print)
    for line in table(report):
        _print(line)
    return 1 if report.differences else 0


def table(report: Report) -> list[str]:
    """The summary, a line each."""
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
