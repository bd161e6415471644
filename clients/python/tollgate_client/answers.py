"""What calls return."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Optional, Union

from pydantic import BaseModel, ConfigDict

Label = Union[bool, int, float, str]


class Receipt(dict[str, Any]):
    """What a call cost, by whom it was answered, and under which id it is billed.

    It is a dict as well, so that a DataFrame with a receipt in its `attrs` can be stored. Amounts
    are decimal strings, as everywhere in the API; `Decimal(receipt.amount)` is exact.
    """

    @property
    def event_id(self) -> str:
        """The id of the usage event; of a call in batches, that of the first batch."""
        return str(self["event_id"])

    @property
    def amount(self) -> str:
        """The price in units of `currency`. A repeat of a paid call states it too, but is free."""
        return str(self["amount"])

    @property
    def currency(self) -> str:
        """The currency's code, such as `USD`."""
        return str(self["currency"])

    @property
    def model(self) -> str:
        """The name of the model that answered."""
        return str(self["model"])

    @property
    def version(self) -> str:
        """The version that answered; of a call in batches, the first batch's."""
        return str(self["version"])

    @property
    def parts(self) -> tuple[Receipt, ...]:
        """The receipts of the batches, if there was more than one."""
        return tuple(Receipt(part) for part in self.get("parts", ()))


class Prediction(BaseModel):
    """The answer of `predict`: one entry per row, in the order of the rows."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    predictions: list[Label]
    """Labels of a classifier, or numbers."""
    probabilities: Optional[list[list[float]]] = None
    """With `probabilities=True`: one per class, in the order of the model's `classes`."""
    intervals: Optional[list[tuple[float, float]]] = None
    """With `intervals`, for a regression: low and high."""
    label_sets: Optional[list[list[Label]]] = None
    """With `intervals`, for a classifier: the plausible labels."""
    receipt: Receipt


class Explanation(BaseModel):
    """Why one prediction is what it is: `base` plus all contributions is the model's output."""

    model_config = ConfigDict(frozen=True)

    base: float
    """The output expected without knowing any column."""
    contributions: dict[str, float]
    """What each column adds; with `top`, the rest is under `(other)`."""
    approximate: bool
    """Whether the contributions were sampled."""


class Explanations(BaseModel):
    """The answer of `explain`: one entry per row, in the order of the rows."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    predictions: list[Label]
    explanations: list[Explanation]
    receipt: Receipt


def join_receipts(receipts: Sequence[Receipt]) -> Receipt:
    """Return the receipt of a call from those of its batches; the amount is their sum."""
    if len(receipts) == 1:
        return receipts[0]
    total = sum((Decimal(receipt.amount) for receipt in receipts), Decimal(0))
    return Receipt(receipts[0], amount=f"{total:f}", parts=[dict(each) for each in receipts])
