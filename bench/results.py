"""Write a run's results: `RESULTS.md` and `results.svg`."""

import platform
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench import cores
from bench.chart import Bar, bar_chart
from bench.figures import Figure
from bench.rivals.catalogue import RIVALS
from bench.rivals.comparison import TOLLGATE, RivalsResult, ServerResult, Work
from bench.timing import Timing
from harness.programs import ROOT

CHART_WORK: Work = ("wine", 16)
TABLE_WORKS: tuple[Work, ...] = (("wine", 1), ("wine", 16), ("wine", 64), ("forest", 64))
OUR_PACKAGES = (
    *("uvicorn", "uvloop", "httptools", "onnxruntime", "numpy", "scikit-learn", "orjson"),
    *("fastapi", "starlette", "skl2onnx"),
)
THEIR_PACKAGES = (
    *("uvicorn", "uvloop", "httptools", "onnxruntime", "numpy", "scikit-learn", "pandas"),
    *("fastapi", "starlette", "gunicorn"),
)
COMPARED = """\
What is compared: every request to Tollgate has its token verified, its account leased and priced,
and its usage event journalled. The others do none of that. All predict with the same model:
`wine` is the sample model of every installation, `forest` a random forest of 100 trees over 64
columns. Tollgate and the limit (a bare ASGI app on uvicorn with uvloop and httptools) run its
export to ONNX. Of the others, those marked ONNX run the same file, and the rest run the
scikit-learn pipeline that it was exported from. Each gets the request format native to it, and its
answer is checked against scikit-learn's first. Their apps are in `rivals/`: one worker each and,
where marked, their own batching. All processes of the measured server share one core."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run measured, and how it was run."""

    figures: Sequence[Figure]
    rivals: RivalsResult | None
    timing: Timing
    command: str
    took_s: float


def write(folder: Path, results: Results) -> None:
    """Write `RESULTS.md` and, if rivals were measured, `results.svg` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(document(results, how=describe_run(results)))
    if results.rivals is not None:
        (folder / "results.svg").write_text(chart(results.rivals))


def document(results: Results, *, how: Sequence[str]) -> str:
    """Return `RESULTS.md`.

    Args:
        how: one line per circumstance of the run.
    """
    lines = ["# Benchmark results", "", "Written by `make bench`; not edited.", ""]
    lines += [f"- {line}" for line in how]
    lines += ["", *COMPARED.splitlines(), ""]
    if results.rivals is not None:
        lines += ["![Requests per second of each server](results.svg)", ""]
    lines += ["## Targets", "", *_figures(results.figures), ""]
    if results.rivals is not None:
        lines += ["## Servers", "", *_servers(results.rivals.servers), ""]
        lines += ["## Versions", "", *_versions(results.rivals), ""]
    return "\n".join(lines)


def chart(rivals: RivalsResult) -> str:
    """Return the chart of one-row predictions, the fastest first."""
    rated = [(server, server.rate(CHART_WORK)) for server in rivals.servers]
    bars = [
        Bar(server.name, rate, is_own=server.name == TOLLGATE)
        for server, rate in sorted(rated, key=lambda each: -(each[1] or 0.0))
        if rate is not None
    ]
    subtitle = (
        f"One core, one row per request, {CHART_WORK[1]} connections. "
        "Only Tollgate verifies a token, prices the request and journals it for billing."
    )
    return bar_chart("Predictions per second", subtitle, bars)


def describe_run(results: Results) -> list[str]:
    """Return the date, the machine, the command and the versions of this side."""
    timing = results.timing
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in OUR_PACKAGES)
    commit = _output("git", "rev-parse", "--short", "HEAD")
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; commit {commit}",
        f"Command: `{results.command}`, {results.took_s / 60:.0f} minutes",
        f"Machine: {_machine()}; {cores.describe()}",
        f"Method: {timing.repetitions} interleaved repetitions of {timing.seconds:g} s, "
        f"beside other servers {timing.rival_s:g} s; medians; "
        f"client: {_output('wrk', '-v').partition(' [')[0] or 'asyncio'}",
        f"Versions: Python {platform.python_version()}, {versions}",
    ]


def _figures(figures: Sequence[Figure]) -> list[str]:
    rows = [
        (figure.name, figure.measured, figure.target, figure.verdict, figure.detail)
        for figure in figures
    ]
    return _table(("figure", "measured", "target", "", "detail"), rows)


def _servers(servers: Sequence[ServerResult]) -> list[str]:
    titles = [f"{model}, {connections} conn." for model, connections in TABLE_WORKS]
    heading = ("server", "model runs on", *titles, "start", "memory")
    note = "Requests per second and p99 of one row; memory is that of all processes (PSS)."
    return [note, "", *_table(heading, [_server(server) for server in servers])]


def _server(server: ServerResult) -> Sequence[str]:
    """Return a server's cells; only the reason if nothing of it was measured."""
    title = server.name.removesuffix(f" ({server.engine})")
    if server.problem and not server.measured:
        return title, server.engine, server.problem
    return (
        title,
        server.engine,
        *(_cell(server, work) for work in TABLE_WORKS),
        f"{statistics.median(server.start_s):.1f} s" if server.start_s else "n/a",
        f"{statistics.median(server.memory_bytes) / 1e6:,.0f} MB" if server.memory_bytes else "n/a",
    )


def _cell(server: ServerResult, work: Work) -> str:
    rate, p99_ms = server.rate(work), server.p99_ms(work)
    if rate is None or p99_ms is None:
        return server.problem or "n/a"
    return f"{rate:,.0f} ({p99_ms:,.1f} ms)"


def _versions(rivals: RivalsResult) -> list[str]:
    named = {rival.folder: (rival.title, rival.package) for rival in RIVALS}
    rows = []
    for folder, packages in rivals.packages.items():
        title, package = named[folder]
        resolved = [f"{name} {packages[name]}" for name in THEIR_PACKAGES if name in packages]
        rows.append((f"{title} {packages.get(package, '')}", ", ".join(resolved)))
    return _table(("server", "resolved"), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; short rows are padded."""
    padded = [[*row, *[""] * (len(heading) - len(row))] for row in rows]
    lines = [heading, ["---"] * len(heading), *padded]
    return [f"| {' | '.join(map(_escaped, line))} |" for line in lines]


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _machine() -> str:
    """Return the processor, its cores, the memory and the kernel."""
    processor = memory = ""
    with open("/proc/cpuinfo") as file:
        processor = next((line for line in file if line.startswith("model name")), "")
    with open("/proc/meminfo") as file:
        memory = next(line for line in file if line.startswith("MemTotal")).split()[1]
    return (
        f"{processor.partition(': ')[2].strip() or platform.machine()}, "
        f"{cores.count()} cores, {int(memory) / 2**20:.0f} GB, "
        f"{platform.system()} {platform.release().partition('-')[0]}"
    )


def _output(*command: str) -> str:
    """Return the first line that a program prints; empty if it is not installed."""
    if shutil.which(command[0]) is None:
        return ""
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return (finished.stdout or finished.stderr).strip().partition("\n")[0]
