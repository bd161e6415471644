"""One slice of a prepaid account's balance: what this process may spend without asking.

All amounts are in 10⁻⁹ of the currency unit, and `granted` and `spent` only grow over the life of
a process but for two cases: a freed reservation, and a slice given back by an ask. Such an ask is
unsafe until it is answered: billing may have lowered `granted` and the answer been lost. So nothing
is spent between an ask that may lower and the next answer, to whichever ask.
"""

from dataclasses import dataclass

HOLDS_S = 480.0
"""How long a slice may be spent after its last answered ask was sent; billing gives a silent
process up after ten minutes and its slice to others."""


@dataclass(slots=True)
class Slice:
    """What billing granted and what of it is spent or reserved."""

    granted: int = 0
    spent: int = 0
    until: float = 0.0
    """When it may no longer be spent, on the process's clock."""
    sure: bool = True
    """False while an ask that may have lowered `granted` has no answer."""

    @property
    def unspent(self) -> int:
        return self.granted - self.spent

    def reserve(self, amount: int, *, now: float) -> bool:
        """Count an amount as spent, if it may be. What is never freed stays spent."""
        if self.spent + amount > self.granted or not self.sure or now >= self.until:
            return False
        self.spent += amount
        return True

    def free(self, amount: int) -> None:
        """Take a reservation back: its request failed and nothing was journalled."""
        self.spent -= amount

    def report(self, *, may_lower: bool) -> int:
        """What to tell billing as `spent` in an ask that is being sent now.

        Args:
            may_lower: the ask releases the slice, or needs an amount and gives it back if refused.
        """
        if may_lower:
            self.sure = False
        return self.spent

    def answer(self, granted: int, *, sent_at: float) -> None:
        """Take the answer to the latest ask, which was sent at `sent_at`.

        Billing that had given this process up as lost may answer less than is spent here; amounts
        are cumulative, so nothing can be spent until it has granted more than that.
        """
        self.granted = granted
        self.until = sent_at + HOLDS_S
        self.sure = True
