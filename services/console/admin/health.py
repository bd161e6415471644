"""How the live models and the journals do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DRIFT_WARNING, DRIFT_DANGER = 0.1, 0.25
"""Population stability indexes above which a distribution has moved a little, and a lot."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word on how something does, and the kind of its badge."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Journals:
    """All journals in figures; those with gaps come first."""

    journals: Sequence[Mapping[str, Any]]

    @property
    def with_gaps(self) -> int:
        """How many journals have numbers that did not arrive."""
        return sum(1 for each in self.journals if each["missing"])

    @property
    def missing(self) -> int:
        """How many numbers did not arrive."""
        return sum(last - first + 1 for each in self.journals for first, last in each["missing"])

    @property
    def lag_s(self) -> float:
        """How long the open journal that waits longest is incomplete, in seconds."""
        return max((each["lag_seconds"] for each in self.journals), default=0.0)

    def in_state(self, state: str) -> int:
        """Return how many are `open`, `closed` or `lost`."""
        return sum(1 for each in self.journals if each["state"] == state)


def order_journals(journals: Sequence[Mapping[str, Any]]) -> Journals:
    """Return the journals: with gaps, then open, then lost, then closed; those that lag first."""
    states = {"open": 0, "lost": 1, "closed": 2}
    return Journals(
        sorted(
            journals,
            key=lambda each: (
                not each["missing"],
                states.get(each["state"], 3),
                -each["lag_seconds"],
                each["journal"],
            ),
        )
    )


def judge_drift(index: float | None) -> Verdict:
    """Return a word on a population stability index."""
    if index is None:
        return Verdict("", "Not measured yet")
    if index > DRIFT_DANGER:
        return Verdict("danger", "Drifted")
    if index > DRIFT_WARNING:
        return Verdict("warning", "Moving")
    return Verdict("success", "Stable")
