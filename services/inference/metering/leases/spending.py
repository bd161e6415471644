"""What one request costs, as the manager of leases returns it."""

from functools import lru_cache
from typing import NamedTuple, Self

from services.common.contracts import format_amount
from services.inference.metering.leases.accounts import Account, Price
from services.inference.metering.leases.rates import TokenBucket
from services.inference.metering.leases.reservations import CreditReservation


class Spending(NamedTuple):
    """What one request costs, in 10⁻⁹ of the unit, and where the amount was reserved."""

    amount: int
    currency: str
    price_id: str
    reservation: CreditReservation | None = None
    """Where the amount was reserved; None if the request is postpaid or was charged before."""
    billed_as: str | None = None
    """What the price is for; None if it is for all models without their own."""
    owed: bool = True
    """False for the repeat of a charged request: it must not be billed, not even as a duplicate."""
    is_test: bool = False
    """Whether the request was made with a test key, so that nothing is owed."""
    bucket: TokenBucket | None = None
    """What is left of the account's rate limit; None if it has none, or for a test key."""

    @classmethod
    def of(
        cls,
        account: Account,
        price: Price,
        amount: int,
        reservation: CreditReservation | None = None,
    ) -> Self:
        """Return the spending of an admitted request."""
        return cls(
            amount,
            price.currency,
            price.price_id,
            reservation,
            billed_as=price.model,
            bucket=account.bucket,
        )

    def free(self) -> None:
        """Free the reserved amount: the request failed and will not be billed."""
        if self.reservation is not None:
            self.reservation.free(self.amount)

    def usage_amount(self) -> str:
        """Return the value of `X-Usage-Amount`, such as `0.0005 USD`."""
        return _usage_amount(self.amount, self.currency, self.is_test)


@lru_cache(maxsize=1024)
def _usage_amount(amount: int, currency: str, is_test: bool) -> str:
    return f"{format_amount(amount)} {currency}{' (test)' if is_test else ''}"
