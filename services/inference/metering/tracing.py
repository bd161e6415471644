"""Usage events in the traces of their predictions: journalled, shipped, then billed.

A traced event carries its `traceparent` (CloudEvents distributed tracing extension). The process
that ships it, which may be a later one, and billing then continue that trace. Used only where
tracing is on.
"""

import re
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from services.common.contracts import IngestResult
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal.journal import Journal

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

_TRACED = re.compile(rb'\{"sequence":"[0-9]+","traceparent":"([0-9a-f-]+)"')
"""How a traced event begins once the journal has added its sequence."""


class TracedJournal(Journal):
    """A `Journal` that adds its trace to each event."""

    def __init__(self, tracing: "Tracing", *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracing = tracing

    def append(self, event: bytes) -> Coroutine[Any, Any, None]:
        """Make an event durable, as `Journal.append` does."""
        return self._append_traced(event) if self._tracing.is_recording else super().append(event)

    async def _append_traced(self, event: bytes) -> None:
        with self._tracing.hand_on("journal") as traceparent:
            await super().append(b'{"traceparent":"%s",' % traceparent.encode() + event[1:])


class TracedBillingClient(BillingClient):
    """A `BillingClient` that sends each traced event in a span of its trace."""

    def __init__(self, tracing: "Tracing", *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracing = tracing

    async def send_events(self, events: Sequence[bytes]) -> IngestResult:
        """Deliver usage events, as `BillingClient.send_events` does."""
        traceparents = [found[1].decode() for found in map(_TRACED.match, events) if found]
        with self._tracing.follow("ship", traceparents):
            return await super().send_events(events)
