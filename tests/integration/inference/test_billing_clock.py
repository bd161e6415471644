"""The clock that dates usage, and the token that billing accepts by its own clock."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
from pydantic import SecretStr

from services.common.http.client import http_client
from services.common.identity.tokens import LEEWAY_S
from services.inference.metering.billing_client import BillingClient
from tests.integration.inference.neighbours import Neighbours


class Machine:
    """A machine's clocks, set by a test."""

    def __init__(self) -> None:
        self.wall, self.uptime = 1_800_000_000.0, 50.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.uptime


async def test_usage_is_not_dated_into_the_future_when_the_machines_clock_jumps() -> None:
    machine = Machine()
    async with httpx.AsyncClient() as http:
        billing = BillingClient(
            http,
            billing_url="",
            auth_url="",
            client_id="",
            client_secret=SecretStr(""),
            wall_clock=machine.time,
            clock=machine.monotonic,
        )
    billing._follow_clock(format_datetime(datetime.fromtimestamp(machine.wall, UTC)))

    machine.wall += 3_600
    machine.uptime += 1
    jumped = billing.now()
    for date in ("yesterday", "", "Sun, 99 Nov 2026 99:99:99 GMT", None):
        billing._follow_clock(date)
    ignored = billing.now()
    billing._follow_clock(format_datetime(datetime.fromtimestamp(1_800_000_001.0, UTC)))

    assert jumped == ignored == 1_800_000_001.0
    assert billing.now() == 1_800_000_001.5


async def test_a_token_is_renewed_before_a_clock_ahead_rejects_it(
    neighbours: Neighbours,
) -> None:
    machine = Machine()
    async with http_client() as http:
        billing = BillingClient(
            http,
            billing_url=neighbours.url,
            auth_url=neighbours.url,
            client_id="inference",
            client_secret=SecretStr("secret"),
            clock=machine.monotonic,
        )
        await billing.request_leases([])
        before = neighbours.tokens

        machine.uptime += 3600 - 2 * LEEWAY_S
        await billing.request_leases([])
        kept = neighbours.tokens
        machine.uptime += LEEWAY_S
        await billing.request_leases([])

    assert (kept - before, neighbours.tokens - before) == (0, 1)
