"""A credit reservation: the part of a prepaid balance that this process may spend on its own.

Amounts are in 10⁻⁹ of the currency unit. Over the life of a process `granted` and `spent` only
grow, with two exceptions: a request that fails frees what it reserved, and a lease request may give
unspent credit back. After such a lease request billing may have lowered `granted` without this
process knowing, because the response can be lost. So nothing is spent until the next response
arrives.
"""

from dataclasses import dataclass

SPENDABLE_S = 480.0
"""How long a reservation may be spent, counted from when the last answered lease request was sent.

Billing declares a silent process lost after ten minutes and gives its credit to others.
"""


@dataclass(slots=True)
class CreditReservation:
    """What billing granted, and how much of that is spent or reserved by running requests."""

    granted: int = 0
    spent: int = 0
    until: float = 0.0
    """When it can no longer be spent, on the process's clock."""
    confirmed: bool = True
    """False while a lease request that may have lowered `granted` is unanswered."""

    @property
    def unspent(self) -> int:
        return self.granted - self.spent

    def reserve(self, amount: int, *, now: float) -> bool:
        """Count an amount as spent if the reservation covers it.

        It stays spent unless it is freed.
        """
        if self.spent + amount > self.granted or not self.confirmed or now >= self.until:
            return False
        self.spent += amount
        return True

    def free(self, amount: int) -> None:
        """Take an amount back: its request failed and nothing was journalled."""
        self.spent -= amount

    def report(self, *, may_lower: bool) -> int:
        """Return the `spent` of a lease request that is about to be sent.

        Args:
            may_lower: the request releases the reservation, or has a minimum and gives all unspent
                credit back if billing cannot grant it.
        """
        if may_lower:
            self.confirmed = False
        return self.spent

    def apply_grant(self, granted: int, *, sent_at: float) -> None:
        """Take over what billing granted in response to the latest lease request.

        If billing had declared this process lost, `granted` may be less than `spent`. Amounts are
        cumulative, so nothing can be spent until billing has granted more than that.
        """
        self.granted = granted
        self.until = sent_at + SPENDABLE_S
        self.confirmed = True
