"""The outcome of a training run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.releasing import Gate


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training run.

    Args:
        gate: None for a repeat, if neither the record nor the version says.
        serving: the format that is served; None for a repeat.
        reasons: sentences why the gate failed, or would have without `force`.
        metrics: as in the manifest; empty for a repeat.
        notes: sentences about what was read, dropped, ignored and truncated.
        release: the release number; None if the version did not go live.
        warnings: sentences about likely mistakes.
        pinned: a sentence about the pin that blocked the release.
        refused: a sentence why inference would refuse the version.
        repeated: whether this is the recorded outcome of an earlier run with the same key.
    """

    model: str
    version: str
    gate: Gate | None
    serving: Literal["onnx", "joblib"] | None
    reasons: list[str]
    metrics: dict[str, Any]
    release: int | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pinned: str | None = None
    refused: str | None = None
    repeated: bool = False

    @property
    def is_failure(self) -> bool:
        """Return whether the version failed its gate, or cannot be served although requested."""
        return self.gate == "failed" or self.refused is not None
