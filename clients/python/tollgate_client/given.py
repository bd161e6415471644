"""What callers give, for type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, Union


class Frame(Protocol):
    """A pandas DataFrame; the client works without pandas."""

    @property
    def iloc(self) -> Any:
        """Rows and columns by position."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""


FrameT = TypeVar("FrameT", bound=Frame)

Row = Union[Mapping[str, Any], Sequence[Any]]
"""Named columns, or values in the order of the model's columns."""
