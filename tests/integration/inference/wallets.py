"""Prepaid money as billing keeps it, in memory: what lease requests are tested against."""

from dataclasses import dataclass, field
from typing import Any

from services.common.contracts import format_amount, parse_amount


@dataclass
class Granted:
    """A credit reservation in billing; amounts in 10⁻⁹ of the unit."""

    granted: int = 0
    settled: int = 0
    sequence: int = 0
    spent: int = 0
    """As last reported."""
    lost: bool = False


@dataclass
class Wallets:
    """The prepaid accounts, each with its available money and its reservations by journal."""

    available: dict[str, int] = field(default_factory=dict)
    reservations: dict[tuple[str, str], Granted] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    """(journal, sequence) of the events that arrived."""

    def top_up(self, account: str, amount: str) -> None:
        self.available[account] = self.available.get(account, 0) + parse_amount(amount)

    def balance(self, account: str) -> int:
        return self.available[account] + self.held(account)

    def held(self, account: str) -> int:
        return sum(
            each.granted - each.settled
            for (owner, _), each in self.reservations.items()
            if owner == account
        )

    def lease(self, request: dict[str, Any]) -> tuple[str, str]:
        """Apply one lease request; return its status and `granted`."""
        account = request["account"]
        mine = self.reservations.setdefault((account, request["journal"]), Granted())
        if request["sequence"] <= mine.sequence:
            return "ok", format_amount(mine.granted)
        spent, minimum = parse_amount(request["spent"]), parse_amount(request["minimum"])
        assert spent <= mine.granted or mine.lost, "a process never spends more than its grant"
        mine.sequence, mine.spent = request["sequence"], spent
        status = "ok"
        if request["release"]:
            self._give_back(account, mine)
        else:
            missing = max(parse_amount(request["desired"]), minimum) - (mine.granted - spent)
            share = self.available[account] if minimum else (self.available[account] + 1) // 2
            more = max(min(missing, share), 0)
            self.available[account] -= more
            mine.granted += more
            if mine.granted - spent < minimum:
                self._give_back(account, mine)
                others = sum(
                    each.granted - max(each.settled, each.spent)
                    for (owner, _), each in self.reservations.items()
                    if owner == account and each is not mine
                )
                enough = others + self.available[account] >= minimum
                status = "reserved_elsewhere" if enough else "no_credit"
        if status == "ok" and not self.balance(account):
            status = "no_credit"
        return status, format_amount(mine.granted)

    def settle(
        self, account: str, journal: str, sequence: str, amount: int, *, charged_before: bool
    ) -> None:
        """Settle an event that has arrived, for the first time or again."""
        if (journal, sequence) in self.seen:
            return
        self.seen.add((journal, sequence))
        if mine := self.reservations.get((account, journal)):
            mine.settled += amount
        else:
            self.available[account] -= amount
        if charged_before:
            self.available[account] += amount

    def close(self, journal: str) -> None:
        """Remove the reservations of a journal that is complete or lost."""
        for account, owner in [key for key in self.reservations if key[1] == journal]:
            gone = self.reservations.pop((account, owner))
            self.available[account] += gone.granted - gone.settled

    def declare_lost(self, account: str) -> None:
        """Reclaim the credit of all processes of an account, as after a long silence."""
        for (owner, _), each in self.reservations.items():
            if owner == account:
                self.available[account] += each.granted - each.settled
                each.granted, each.lost = each.settled, True

    def _give_back(self, account: str, mine: Granted) -> None:
        kept = max(mine.settled, min(mine.spent, mine.granted))
        self.available[account] += mine.granted - kept
        mine.granted = kept
