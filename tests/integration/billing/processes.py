"""A model of an honest process that serves requests."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from harness.usage_events import Json
from services.common.contracts import LeaseRequest
from tests.integration.billing.money import NOON, new_id

SPENDABLE_FOR = timedelta(minutes=8)
"""How long a reservation may be spent after the last answered lease request."""


@dataclass
class Wallet:
    """What one process knows of one account."""

    granted: int = 0
    spent: int = 0
    frozen: bool = False
    """Whether a lease request that may have lowered `granted` is unanswered."""
    requested_at: datetime = NOON

    def may_spend(self, *, now: datetime) -> int:
        if self.frozen or now - self.requested_at >= SPENDABLE_FOR:
            return 0
        return max(0, self.granted - self.spent)


@dataclass
class Process:
    per_row: int = 1
    """The price of a row."""
    journal: str = field(default_factory=new_id)
    alive: bool = True
    has_disk: bool = True
    was_lost: bool = False
    sent: list[LeaseRequest] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    wallets: dict[str, Wallet] = field(default_factory=dict)

    def unreported(self, account: str) -> int:
        """Return what it has spent without an event in billing."""
        return sum(
            event["data"]["rows"] * self.per_row
            for index, event in enumerate(self.events)
            if index not in self.arrived and event["subject"] == account
        )

    def outstanding(self, account: str) -> int:
        """Return what it has spent and may still report."""
        return self.unreported(account) if self.has_disk else 0
