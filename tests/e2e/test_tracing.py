"""One trace from a request to its bill, through three processes and a collector."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.otlp_collector import CollectedSpan, Collector, collecting
from harness.platform import Platform, running
from harness.ports import free_port
from harness.programs import ROOT
from harness.samples import PREDICT, WINE
from harness.waiting import eventually

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = [12.345678, *WINE[1:]]
WANTED = {
    "inference: POST /v1/models/{model}:predict",
    "inference: POST /leases",
    "billing: POST /leases",
    "inference: journal",
    "inference: ship",
    "billing: bill",
}


@pytest.fixture(scope="module")
def port() -> int:
    """Return the collector's endpoint, if it is running."""
    return free_port()


@pytest.fixture(scope="module")
def traced(new_home: Callable[[], Path], port: int) -> Iterator[Platform]:
    """A platform that sends its traces to that port."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with running(new_home(), environment) as platform:
        yield platform


def predict(platform: Platform, token: str, *, traceparent: str = "") -> str:
    """Predict one row; return the id under which it is billed."""
    with platform.client("inference", token) as inference:
        headers = {"traceparent": traceparent} if traceparent else {}
        answer = inference.post(PREDICT, json={"instances": [ROW]}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["X-Usage-Event"])


def calls_in(collector: Collector, trace: str) -> dict[str, CollectedSpan]:
    """Return the spans of a trace except for its SQL, by service and name."""
    spans = [
        span for span in collector.find(trace=trace) if "db.system.name" not in span.attributes
    ]
    return {f"{span.service}: {span.name}": span for span in spans}


class TestTraces:
    def test_a_request_and_its_bill_are_one_trace_without_personal_data(
        self, traced: Platform, port: int
    ) -> None:
        with collecting(port) as collector:
            email, password = traced.register_user()
            token = traced.token(email, password)
            usage_event = predict(traced, token, traceparent=f"00-{TRACE}-{CALLER}-01")
            eventually(lambda: calls_in(collector, TRACE).keys() >= WANTED)

        spans = calls_in(collector, TRACE)
        request = spans["inference: POST /v1/models/{model}:predict"]
        journalled = spans["inference: journal"]
        assert request.parent == CALLER
        assert request.attributes["http.response.header.x-usage-event"] == usage_event
        assert journalled.parent == request.id
        assert spans["inference: ship"].parent == journalled.id
        assert spans["billing: bill"].parent == journalled.id
        # An account's first request waits for its terms; later ones do not.
        assert spans["inference: POST /leases"].parent == request.id
        assert spans["billing: POST /leases"].parent == spans["inference: POST /leases"].id

        credentials = json.loads((traced.home / "credentials.json").read_text())
        secrets = [email, password, token, str(ROW[0]), credentials["admin"]["password"]]
        secrets += [credentials["services"]["inference"]["client_secret"], "Bearer "]
        collected = "".join(collector.texts)
        assert [secret for secret in secrets if secret in collected] == []

    def test_predictions_continue_without_a_collector_and_are_traced_once_it_answers(
        self, traced: Platform, port: int
    ) -> None:
        token = traced.new_token()

        for _ in range(3):
            predict(traced, token)
        eventually(lambda: traced.usage(token)["requests"] == 3)
        with collecting(port) as collector:
            usage_event = predict(traced, token)
            eventually(
                lambda: [
                    span
                    for span in collector.spans
                    if span.attributes.get("http.response.header.x-usage-event") == usage_event
                ]
            )


@pytest.mark.costly
class TestStarting:
    def run(self, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run Python without OpenTelemetry's SDK; return its exit code and output."""
        blocked = "import sys; sys.modules['opentelemetry.sdk'] = None"
        (folder / "sitecustomize.py").write_text(blocked)
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "TOLLGATE_HOME": str(folder)}
            | {"PYTHONPATH": f"{folder}:{ROOT}"}
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result.returncode, result.stdout + result.stderr

    def test_without_the_packages_one_line_reports_it(self, tmp_path: Path) -> None:
        code, output = self.run(
            tmp_path, "-m", "services.billing", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318"
        )

        assert (code, output.count("\n")) == (2, 1)
        assert output.startswith(
            "error: OTEL_EXPORTER_OTLP_ENDPOINT: install tollgate[otel] to send traces: "
        )

    def test_without_an_endpoint_the_packages_are_not_needed(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "-c", "import services.billing.app") == (0, "")
