"""Benchmarks of explanations and intervals against plain predictions by the same process."""

from bench import samples
from bench.comparison import Side, check_answer, compare
from bench.figures import Figure
from bench.samples import json_request
from bench.servers import inference
from bench.timing import Timing
from harness.services import ServiceProcesses

SLOWER_AT_MOST = {"explanation": 20.0, "intervals": 1.1}
"""How many predictions one of each may cost, one after another on one connection."""
LEVEL = 0.9


def explanations(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare one row of a forest of 100 trees: explained, with a label set, and predicted."""
    model, token = samples.forest(platform), platform.new_token()
    rows, labels = model.rows[:1], model.labels(model.rows[:1])
    figures = []
    with inference(platform) as server:
        plain = json_request(server.url, model.name, rows, token=token)
        requests = {
            "explanation": json_request(server.url, model.name, rows, token=token, verb="explain"),
            "intervals": json_request(
                server.url, model.name, rows, token=token, parameters={"intervals": LEVEL}
            ),
        }
        for name, request in requests.items():
            check_answer(server.url, request, labels)
            compared = compare(
                Side(server, [plain]), Side(server, [request]), connections=1, timing=timing
            )
            timing.say(f"{name}: {compared.rates}")
            figures.append(
                Figure(
                    f"forest, one row: {name} ÷ prediction",
                    compared.rates.ratio,
                    "×",
                    f"{compared.rates} req/s, 1 connection",
                    at_most=SLOWER_AT_MOST[name],
                )
            )
    return figures
