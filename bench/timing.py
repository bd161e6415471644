"""How long the parts measure, and how they report their progress."""

import sys
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one run; the defaults are those of the full table.

    Args:
        seconds: of one measurement.
        rival_s: of one measurement beside the rivals, which are far apart.
        repetitions: measurements of each figure, interleaved; the table has their medians.
        sustained_s: of the run at full load.
        overload_s: of the run at four times the capacity.
        accounts: in the measurement with as many tokens.
    """

    seconds: float = 3.0
    rival_s: float = 2.0
    repetitions: int = 3
    sustained_s: float = 60.0
    overload_s: float = 30.0
    accounts: int = 100_000
    started: float = field(default_factory=time.perf_counter)

    def say(self, line: str) -> None:
        """Print a line of progress with the time since the start of the run."""
        elapsed_s = int(time.perf_counter() - self.started)
        sys.stdout.write(f"[{elapsed_s // 60:2d}:{elapsed_s % 60:02d}] {line}\n")
        sys.stdout.flush()
