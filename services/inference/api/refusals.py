"""The log of refused predictions, which stays readable and cheap in a flood."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from services.common.errors import ServiceError

EVERY_S = 1.0
_COME_IN_FLOODS = frozenset({429, 503})

log = structlog.get_logger()


class RefusalLog:
    """Logs each refused prediction, but of those for want of capacity one per code and second.

    Under overload most requests are refused. A line for each would take a quarter of the time that
    the others need.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, error: ServiceError, *, path: str, status: int, request_id: str) -> None:
        """Log a refusal, with how many alike were left out since the last line."""
        code = error.code
        if status not in _COME_IN_FLOODS:
            log.info(
                "prediction_refused", path=path, status=status, code=code, request_id=request_id
            )
            return
        now = self._clock()
        if now < self._next.get(code, now):
            self._left_out[code] += 1
            return
        self._next[code] = now + EVERY_S
        log.info(
            "prediction_refused",
            path=path,
            status=status,
            code=code,
            request_id=request_id,
            left_out=self._left_out.pop(code, 0),
        )
