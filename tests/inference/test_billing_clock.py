"""The clock that dates usage."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
from pydantic import SecretStr

from services.inference.metering.billing_client import BillingClient


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
