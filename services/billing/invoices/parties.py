"""The seller, its buyers, and the tax between them."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from stdnum import get_cc_module
from stdnum.exceptions import ValidationError as InvalidNumber

from services.billing.invoices.models import ADDRESS_CHARS, PARTY_CHARS
from services.common.validation import matching

Country = Annotated[
    str,
    matching(
        r"^[A-Z]{2}$",
        "Must be two letters, such as DE.",
        description="ISO 3166-1 alpha-2, such as DE.",
    ),
]
_Line = Annotated[
    str, Field(strict=True, min_length=1, max_length=PARTY_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")
]
_Lines = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=ADDRESS_CHARS, pattern=r"^[^\x00-\x09\x0b-\x1f]+$"),
]
Email = Annotated[
    str,
    matching(
        r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$",
        "Must be an e-mail address.",
        strict=True,
        max_length=PARTY_CHARS,
    ),
]
VatId = Annotated[str, Field(strict=True, max_length=32, pattern=r"^[A-Za-z0-9 .+*-]+$")]
RegistrationNumber = Annotated[
    str,
    StringConstraints(
        strict=True,
        strip_whitespace=True,
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f]+$",
    ),
]


def valid_vat_id(vat_id: str, *, country: str) -> str:
    """Return a VAT id in its compact form, in which it begins with its country.

    Where there is no rule for the country's ids, any id is accepted.

    Raises:
        ValueError: it is not a VAT id of the country.
    """
    module = get_cc_module(country.lower(), "vat")
    if module is None:
        return vat_id.strip()
    try:
        compact = str(module.validate(vat_id))
    except InvalidNumber as error:
        raise ValueError(f"is not a VAT id of {country}") from error
    prefix = "EL" if country == "GR" else country
    return compact if compact.startswith(prefix) else prefix + compact


class ProfileUpdate(BaseModel):
    """Who an account's invoices are addressed to."""

    model_config = ConfigDict(extra="forbid")

    name: _Line
    address: _Lines
    country: Country
    vat_id: VatId | None = None
    email: Email

    @model_validator(mode="after")
    def _vat_id_is_valid(self) -> Self:
        if self.vat_id is not None:
            try:
                self.vat_id = valid_vat_id(self.vat_id, country=self.country)
            except ValueError as error:
                raise ValueError(f"vat_id {error}") from error
        return self


class Party(BaseModel):
    """The seller or the buyer, as an invoice names them."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=PARTY_CHARS)
    address: str | None = Field(default=None, max_length=ADDRESS_CHARS)
    country: Country | None = None
    vat_id: str | None = None
    registration_number: RegistrationNumber | None = Field(
        default=None,
        description="Of the seller as a company (BT-30); absent if it has none.",
        # The version before refuses invoices with a member that it does not have.
        exclude_if=lambda number: number is None,
    )
    email: str | None = None


NO_SELLER = Party(name="Tollgate")
"""The seller where `BILLING_SELLER` is unset."""


_RATE_DECIMALS = 9


def _fraction(given: Any) -> str:
    """Return a tax rate, given as a number or as text, as an amount's plain digits."""
    text = str(given).strip()
    try:
        rate = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("must be a decimal, such as 0.19 or 19") from error
    if not rate.is_finite() or not 0 <= rate <= 100:
        raise ValueError("must be a fraction, such as 0.19, or a percentage from 1 to 100")
    plain = f"{rate.copy_abs():f}"
    if len(plain.partition(".")[2]) > _RATE_DECIMALS:
        raise ValueError(f"must have at most {_RATE_DECIMALS} decimals")
    return plain


class TaxRule(BaseModel):
    """What buyers in a country pay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    country: Country
    rate: Annotated[str, BeforeValidator(_fraction)]
    """A fraction below 1 or a percentage from 1: 0.19 and 19 are the same."""
    reverse_charge: bool = False
    """Whether a business with a VAT id in another country than the seller's pays it itself.

    It needs the seller's country.
    """


class Tax(BaseModel):
    """The tax on an invoice's subtotal."""

    rate: str = Field(description="As in the rule: 0.19 and 19 are the same.")
    amount: str
    reason: str


class AppliedTax(BaseModel):
    """The rule that applies to a buyer."""

    rate: str
    reason: str

    @property
    def fraction(self) -> Fraction:
        """The rate as an exact number below 1, or 1 for 100 %."""
        rate = Fraction(Decimal(self.rate))
        return rate if rate < 1 else rate / 100


def find_tax(rules: Sequence[TaxRule], *, seller: Party, buyer: Party) -> AppliedTax:
    """Return the tax that a buyer pays: by the first rule for its country, else none."""
    rule = next((rule for rule in rules if rule.country == buyer.country), None)
    if rule is None:
        return AppliedTax(rate="0", reason="No tax applies.")
    is_abroad = seller.country is not None and buyer.country != seller.country
    if rule.reverse_charge and buyer.vat_id and is_abroad:
        return AppliedTax(rate="0", reason="Reverse charge: the recipient owes the tax.")
    return AppliedTax(rate=rule.rate, reason=f"Tax in {rule.country}.")
