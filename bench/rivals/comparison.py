"""Measure the rivals, the bare app and Tollgate: the same models, core and client."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bench import load, samples
from bench.comparison import WrongAnswer, check_answer
from bench.figures import Figure
from bench.load import Measured, RequestsFailed
from bench.rivals.catalogue import RIVALS, Rival
from bench.rivals.environments import NotBuilt, installed_versions, python_of
from bench.rivals.running import Failed, running_rival
from bench.samples import SampleModel, json_request
from bench.servers import RunningServer, bare, inference, proportional_bytes
from bench.timing import Timing
from harness.services import ServiceProcesses

TOLLGATE, LIMIT = "Tollgate", "limit: bare ASGI"
WINE_CONNECTIONS = (1, 16, 64)
FOREST_CONNECTIONS = (64,)
WARM_UP_S = 1.0

Work = tuple[str, int]
"""The name of a model, and the number of connections."""


@dataclass(slots=True)
class ServerResult:
    """The measurements of one server.

    Args:
        problem: why it could not be measured; empty if it could.
    """

    name: str
    engine: str
    measured: dict[Work, list[Measured]] = field(default_factory=dict)
    start_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    problem: str = ""

    def rate(self, work: Work) -> float | None:
        """Return the median of the requests per second; None if it was not measured."""
        measured = self.measured.get(work)
        return statistics.median(m.rate for m in measured) if measured else None

    def p99_ms(self, work: Work) -> float | None:
        """Return the median of the 99th percentiles; None if it was not measured."""
        measured = self.measured.get(work)
        return statistics.median(m.p99_ms for m in measured) if measured else None


@dataclass(frozen=True, slots=True)
class RivalsResult:
    """All servers, Tollgate first, and the packages of each environment by folder."""

    servers: list[ServerResult]
    packages: dict[str, dict[str, str]]


def compare_rivals(platform: ServiceProcesses, timing: Timing) -> tuple[list[Figure], RivalsResult]:
    """Start each rival in each repetition, and measure it; return the figures and the rest."""
    models = {"wine": samples.wine(platform), samples.FOREST: samples.forest(platform)}
    works = {"wine": WINE_CONNECTIONS, samples.FOREST: FOREST_CONNECTIONS}
    ours, limit = ServerResult(TOLLGATE, "ONNX"), ServerResult(LIMIT, "ONNX")
    rivals = {rival: ServerResult(rival.name, rival.engine) for rival in RIVALS}
    packages = _build(rivals, timing)
    token = platform.new_token()
    for repetition in range(timing.repetitions):
        timing.say(f"repetition {repetition + 1} of {timing.repetitions}")
        for name, model in models.items():
            with noting_failure(ours, timing), inference(platform) as server:
                _measure_ours(ours, server, model, works[name], token, timing)
            with noting_failure(limit, timing), bare(model) as server:
                _measure_ours(limit, server, model, works[name], token, timing)
            for rival, result in rivals.items():
                if rival.folder in packages:
                    with noting_failure(result, timing):
                        _measure_rival(rival, result, model, works[name], timing)
    all_servers = [ours, limit, *rivals.values()]
    return figures_of(all_servers), RivalsResult(all_servers, packages)


def _build(rivals: dict[Rival, ServerResult], timing: Timing) -> dict[str, dict[str, str]]:
    """Build the environments, and return their packages; a failure is noted with its rivals."""
    packages: dict[str, dict[str, str]] = {}
    for folder in dict.fromkeys(rival.folder for rival in rivals):
        timing.say(f"environment of {folder}")
        try:
            python_of(folder)
            packages[folder] = installed_versions(folder)
        except NotBuilt as error:
            timing.say(f"not built: {error}")
            for rival, result in rivals.items():
                if rival.folder == folder:
                    result.problem = f"not built: {error}"
    return packages


@contextmanager
def noting_failure(result: ServerResult, timing: Timing) -> Iterator[None]:
    """Note why a server could not be measured; the next repetition tries again."""
    try:
        yield
    except (Failed, NotBuilt, RequestsFailed, WrongAnswer, AssertionError) as error:
        result.problem = f"failed: {' '.join(str(error).split())[:200]}"
        timing.say(f"{result.name}: {result.problem}")


def _measure_ours(
    result: ServerResult,
    server: RunningServer,
    model: SampleModel,
    connections: tuple[int, ...],
    token: str,
    timing: Timing,
) -> None:
    request = json_request(server.url, model.name, model.rows[:1], token=token)
    check_answer(server.url, request, model.labels(model.rows[:1]))
    shipped = server.await_shipped if result.name == TOLLGATE else lambda: None
    _measure(result, server.url, request, model.name, connections, timing, then=shipped)
    result.start_s.append(server.start_s)
    result.memory_bytes.append(proportional_bytes(server.process.pid))


def _measure_rival(
    rival: Rival,
    result: ServerResult,
    model: SampleModel,
    connections: tuple[int, ...],
    timing: Timing,
) -> None:
    rows = model.rows[:1]
    with running_rival(rival, model.folder, rows=rows, labels=model.labels(rows)) as running:
        request = load.post(running.url, running.body)
        _measure(result, running.url, request, model.name, connections, timing)
        result.start_s.append(running.start_s)
        result.memory_bytes.append(running.memory_bytes())


def _measure(
    result: ServerResult,
    url: str,
    request: bytes,
    model: str,
    connections: tuple[int, ...],
    timing: Timing,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Measure one row with each number of connections, after a warm-up."""
    with suppress(RequestsFailed):  # a slow server may not answer that soon
        load.measure(url, [request], connections=connections[-1], seconds=WARM_UP_S)
    then()
    for count in connections:
        measured = load.measure(url, [request], connections=count, seconds=timing.rival_s)
        then()
        result.measured.setdefault((model, count), []).append(measured)
    rates = ", ".join(
        f"{result.measured[model, count][-1].rate:,.0f} at {count}" for count in connections
    )
    timing.say(f"{result.name}, {model}: {rates} connections")


def figures_of(servers: list[ServerResult]) -> list[Figure]:
    """Compare Tollgate with the best rival of each kind."""
    ours, _, *rivals = servers
    only_scikit_learn = [rival for rival in rivals if rival.engine == "scikit-learn"]
    one_row = [("wine", count) for count in WINE_CONNECTIONS if count > 1]
    figures = [_against(ours, rivals, work, "best rival", at_least=8.0) for work in one_row]
    forest = (samples.FOREST, FOREST_CONNECTIONS[0])
    figures.append(_against(ours, rivals, forest, "best rival", at_least=10.0))
    figures += [
        _against(ours, only_scikit_learn, work, "best with scikit-learn", at_least=None)
        for work in [*one_row, forest]
    ]
    return figures


def _against(
    ours: ServerResult,
    rivals: list[ServerResult],
    work: Work,
    which: str,
    *,
    at_least: float | None,
) -> Figure:
    model, connections = work
    rates = {rival.name: rate for rival in rivals if (rate := rival.rate(work)) is not None}
    best = max(rates, key=rates.__getitem__, default=None)
    own = ours.rate(work)
    name = f"{model}, one row, {connections} connections ÷ {which}"
    if best is None or own is None:
        return Figure(name, None, "×", "one side was not measured", at_least=at_least)
    detail = f"{own:,.0f} and {rates[best]:,.0f} req/s: {best}"
    return Figure(name, own / rates[best], "×", detail, at_least=at_least)
