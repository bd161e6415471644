"""What an honest process that answers requests knows and holds, as a model."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.common.contracts import LeaseAsk
from tests.billing.money import NOON, new_id
from tests.billing.wire import Json

HOLDS_FOR = timedelta(minutes=8)
"""How long a slice may be spent after its last answered ask."""


@dataclass
class Wallet:
    """What one process knows of one account."""

    granted: int = 0
    spent: int = 0
    frozen: bool = False
    """An ask that may have lowered `granted` is unanswered."""
    asked_at: datetime = NOON

    def may_spend(self, *, now: datetime) -> int:
        if self.frozen or now - self.asked_at >= HOLDS_FOR:
            return 0
        return max(0, self.granted - self.spent)


@dataclass
class Process:
    per_row: int = 1
    """What each row that it answers costs."""
    journal: str = field(default_factory=new_id)
    alive: bool = True
    has_disk: bool = True
    was_lost: bool = False
    asks: list[LeaseAsk] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    wallets: dict[str, Wallet] = field(default_factory=dict)

    def unheard(self, account: str) -> int:
        """What it has spent and billing has no event of."""
        return sum(
            event["data"]["rows"] * self.per_row
            for index, event in enumerate(self.events)
            if index not in self.arrived and event["subject"] == account
        )

    def outstanding(self, account: str) -> int:
        """What it has spent and may still report."""
        return self.unheard(account) if self.has_disk else 0
