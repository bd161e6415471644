"""Ingest continues the trace of an event, without any of its data."""

import pytest

from harness.issuer import Headers
from harness.otlp_collector import collecting
from harness.usage_events import deliver, event
from services.common.telemetry.tracing import Tracing
from tests.integration.billing.conftest import OpenApp, browse


@pytest.mark.usefixtures("app")  # it empties the tables
class TestBills:
    async def test_each_traced_event_is_billed_in_its_trace(
        self, open_app: OpenApp, service: Headers
    ) -> None:
        traces = {f"{number:032x}": f"{number:016x}" for number in (1, 2)}
        named = [f"00-{trace}-{span}-01" for trace, span in traces.items()]
        unread = ["nonsense", f"00-{'e' * 32}-{'e' * 16}-00", 17, None, {"a": "b"}]
        events = [event(sequence=n, traceparent=each) for n, each in enumerate(named + unread, 1)]

        with collecting() as collector:
            tracing = Tracing("billing", endpoint=collector.url)
            async with open_app(tracing=tracing) as app, browse(app) as client:
                taken = await deliver(client, service, events)

        assert taken["accepted"] == len(events)
        bills = collector.find(name="bill")
        assert {bill.trace: bill.parent for bill in bills} == traces
        [delivery] = collector.find(name="POST /events")
        assert {bill.links for bill in bills} == {(delivery.id,)}
        statements = collector.find(trace=delivery.trace, parent=delivery.id)
        assert "INSERT usage_events" in [each.name for each in statements]
        text = "".join(collector.texts)
        for one in events:
            assert not [value for value in (one["id"], one["subject"]) if value in text]
