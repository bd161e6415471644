"""Benchmarks of predictions against the bare app: verified, leased and journalled, or nothing."""

from bench import samples
from bench.comparison import Compared, Side, check_answer, compare
from bench.figures import Figure
from bench.load import KEY
from bench.samples import BATCH_ROWS, SampleModel, binary_request, json_request
from bench.servers import RunningServer, bare, inference
from bench.timing import Timing
from harness.services import ServiceProcesses

ONE_ROW = ((1, 0.9), (16, 1.0), (64, 1.0))
"""Connections, and the target relative to the bare app."""
MANY = 64
FEW = 4
"""Connections for requests of many rows, which keep a core busy by themselves."""
SLOWER_AT_MOST = 1.5


def one_row(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare requests/s and p99 of one-row predictions with the bare app's."""
    model, token = samples.wine(platform), platform.new_token()
    figures = []
    with inference(platform) as ours, bare(model) as limit:
        sides = _sides(ours, limit, model, token)
        for connections, target in ONE_ROW:
            compared = compare(*sides, connections=connections, timing=timing)
            timing.say(f"one row, {_of(connections)}: {compared.rates}")
            figures.append(_rate(f"one row, {_of(connections)}", compared, target))
            if connections > 1:
                figures.append(_p99(connections, compared))
        keyed = json_request(
            ours.url, model.name, model.rows, token=token, Idempotency_Key=KEY.decode()
        )
        compared = compare(Side(ours, [keyed]), sides[1], connections=MANY, timing=timing)
        timing.say(f"with an Idempotency-Key: {compared.rates}")
        figures.append(_rate(f"one row, Idempotency-Key, {_of(MANY)}", compared, 0.85))
    with inference(platform, INFERENCE_JOURNAL_SYNC="disk") as ours, bare(model) as limit:
        sides = _sides(ours, limit, model, token)
        compared = compare(*sides, connections=MANY, timing=timing)
        timing.say(f"with disk durability: {compared.rates}")
        figures.append(_rate(f"one row, disk durability, {_of(MANY)}", compared, 0.75))
    return figures


def forest(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare a random forest of 100 trees with the bare app's: one row, and a batch."""
    works = (
        ("one row", 1, MANY, json_request),
        (f"{BATCH_ROWS} rows as JSON", BATCH_ROWS, FEW, json_request),
        (f"{BATCH_ROWS} rows binary", BATCH_ROWS, FEW, binary_request),
    )
    model, token = samples.forest(platform), platform.new_token()
    labels = model.labels(model.rows)
    figures = []
    with inference(platform) as ours, bare(model) as limit:
        for title, count, connections, new_request in works:
            sides = []
            for server in (ours, limit):
                request = new_request(server.url, model.name, model.rows[:count], token=token)
                check_answer(server.url, request, labels[:count])
                sides.append(Side(server, [request], is_metered=server is ours))
            compared = compare(*sides, connections=connections, timing=timing)
            name = f"forest, {title}, {_of(connections)}"
            timing.say(f"{name}: {compared.rates}")
            figures.append(_rate(name, compared, 0.9))
    return figures


def _sides(
    ours: RunningServer, limit: RunningServer, model: SampleModel, token: str
) -> tuple[Side, Side]:
    """Return both sides of a one-row comparison, after a check of their answers."""
    labels = model.labels(model.rows)
    requests = [
        json_request(server.url, model.name, model.rows, token=token) for server in (ours, limit)
    ]
    for server, request in zip((ours, limit), requests, strict=True):
        check_answer(server.url, request, labels)
    return Side(ours, requests[:1]), Side(limit, requests[1:], is_metered=False)


def _rate(name: str, compared: Compared, target: float) -> Figure:
    rates = compared.rates
    return Figure(f"{name} ÷ limit", rates.ratio, "×", f"{rates} req/s", at_least=target)


def _p99(connections: int, compared: Compared) -> Figure:
    return Figure(
        f"p99 of one row, {_of(connections)} ÷ limit's",
        compared.p99.ratio,
        "×",
        f"{compared.p99} ms",
        at_most=SLOWER_AT_MOST,
    )


def _of(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"
