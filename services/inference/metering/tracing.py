"""Usage in the traces of the predictions it was made by: journalled, shipped, and then billed.

An event of a trace names it, by CloudEvents' extension for distributed tracing, so that whoever
ships it, a later process too, and billing go on with that trace. Used only where there are traces.
"""

import re
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from services.common.contracts import IngestResult
from services.inference.metering.billing import BillingClient
from services.inference.metering.journal import Journal

if TYPE_CHECKING:
    from services.common.tracing import Tracing

_NAMED = re.compile(rb'\{"sequence":"[0-9]+","traceparent":"([0-9a-f-]+)"')
"""How an event of a trace begins once the journal has put its sequence in front."""


class TracedJournal(Journal):
    """Writes into an event which trace it belongs to; the arguments: see `Journal`."""

    def __init__(self, tracing: "Tracing", *where: Any, **how: Any) -> None:
        super().__init__(*where, **how)
        self._tracing = tracing

    def append(self, event: bytes) -> Coroutine[Any, Any, None]:
        """Make an event durable, as `Journal.append` does."""
        return self._append_named(event) if self._tracing.is_recording else super().append(event)

    async def _append_named(self, event: bytes) -> None:
        with self._tracing.hand_on("journal") as traceparent:
            await super().append(b'{"traceparent":"%s",' % traceparent.encode() + event[1:])


class TracedBillingClient(BillingClient):
    """Sends each event of a trace in a span of that trace; the arguments: see `BillingClient`."""

    def __init__(self, tracing: "Tracing", *to: Any, **as_whom: Any) -> None:
        super().__init__(*to, **as_whom)
        self._tracing = tracing

    async def send_events(self, events: Sequence[bytes]) -> IngestResult:
        """Deliver usage events, as `BillingClient.send_events` does."""
        named = [found[1].decode() for found in map(_NAMED.match, events) if found]
        with self._tracing.follow("ship", named):
            return await super().send_events(events)
