"""Prepaid money as billing keeps it, in memory: what askers are tested against."""

from dataclasses import dataclass, field
from typing import Any

from services.common.contracts import format_amount, parse_amount


@dataclass
class Granted:
    """A slice as billing knows it; amounts in 10⁻⁹ of the unit."""

    granted: int = 0
    settled: int = 0
    ask_no: int = 0
    spent: int = 0
    """As last reported."""
    given_up: bool = False


@dataclass
class Wallets:
    """The prepaid accounts, each with what is available and its open slices by journal."""

    available: dict[str, int] = field(default_factory=dict)
    slices: dict[tuple[str, str], Granted] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    """(journal, sequence) of the events that arrived."""

    def top_up(self, account: str, amount: str) -> None:
        self.available[account] = self.available.get(account, 0) + parse_amount(amount)

    def balance(self, account: str) -> int:
        return self.available[account] + self.held(account)

    def held(self, account: str) -> int:
        return sum(s.granted - s.settled for (a, _), s in self.slices.items() if a == account)

    def ask(self, ask: dict[str, Any]) -> tuple[str, str]:
        """Take one ask; returns status and `granted`."""
        account = ask["account"]
        mine = self.slices.setdefault((account, ask["journal"]), Granted())
        if ask["ask_no"] <= mine.ask_no:
            return "ok", format_amount(mine.granted)
        spent, at_least = parse_amount(ask["spent"]), parse_amount(ask["at_least"])
        assert spent <= mine.granted or mine.given_up, "an honest asker spends what it was granted"
        mine.ask_no, mine.spent = ask["ask_no"], spent
        status = "ok"
        if ask["release"]:
            self._give_back(account, mine)
        else:
            missing = max(parse_amount(ask["want"]), at_least) - (mine.granted - spent)
            share = self.available[account] if at_least else (self.available[account] + 1) // 2
            more = max(min(missing, share), 0)
            self.available[account] -= more
            mine.granted += more
            if mine.granted - spent < at_least:
                self._give_back(account, mine)
                others = sum(
                    s.granted - max(s.settled, s.spent)
                    for (a, _), s in self.slices.items()
                    if a == account and s is not mine
                )
                enough = others + self.available[account] >= at_least
                status = "held_elsewhere" if enough else "no_credit"
        if status == "ok" and not self.balance(account):
            status = "no_credit"
        return status, format_amount(mine.granted)

    def settle(
        self, account: str, journal: str, sequence: str, amount: int, *, charged_before: bool
    ) -> None:
        """An event has arrived, for the first time or again."""
        if (journal, sequence) in self.seen:
            return
        self.seen.add((journal, sequence))
        if mine := self.slices.get((account, journal)):
            mine.settled += amount
        else:
            self.available[account] -= amount
        if charged_before:
            self.available[account] += amount

    def close(self, journal: str) -> None:
        """A journal has ended and all of it has arrived, or it is given up."""
        for account, owner in [key for key in self.slices if key[1] == journal]:
            gone = self.slices.pop((account, owner))
            self.available[account] += gone.granted - gone.settled

    def give_up(self, account: str) -> None:
        """Every process of an account has been silent for too long."""
        for (owner, _), lost in self.slices.items():
            if owner == account:
                self.available[account] += lost.granted - lost.settled
                lost.granted, lost.given_up = lost.settled, True

    def _give_back(self, account: str, mine: Granted) -> None:
        kept = max(mine.settled, min(mine.spent, mine.granted))
        self.available[account] += mine.granted - kept
        mine.granted = kept
