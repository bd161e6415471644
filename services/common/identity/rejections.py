"""Rejected credentials, kept in memory until `rejection_feed` reports them in one go.

Anyone can send bad credentials, in any number, so they must neither slow requests down nor flood
auth. A rejection therefore costs its request no call, and what exceeds the size of a report is only
counted.
"""

from datetime import UTC, datetime

from services.common.contracts import (
    MAX_ADDRESS_CHARS,
    MAX_OMITTED,
    MAX_REJECTIONS,
    Rejection,
    RejectionReport,
)


class RejectionLog:
    """Owns the rejections that this process has not reported yet."""

    def __init__(self) -> None:
        self._noted: list[Rejection] = []
        self._omitted = 0

    def note(self, address: str) -> None:
        """Note rejected credentials, or only count them if many are noted already.

        Args:
            address: the caller's IP address.
        """
        if len(self._noted) < MAX_REJECTIONS:
            address = address[:MAX_ADDRESS_CHARS]
            self._noted.append(Rejection(time=datetime.now(UTC), address=address))
        else:
            self._omitted = min(self._omitted + 1, MAX_OMITTED)

    def take(self) -> RejectionReport | None:
        """Return what was noted since the last call, or None."""
        noted, self._noted = self._noted, []
        omitted, self._omitted = self._omitted, 0
        return RejectionReport(rejections=noted, omitted=omitted) if noted else None

    def put_back(self, report: RejectionReport) -> None:
        """Keep what could not be reported for the next report."""
        noted = [*report.rejections, *self._noted]
        self._noted = noted[:MAX_REJECTIONS]
        omitted = self._omitted + report.omitted + len(noted) - len(self._noted)
        self._omitted = min(omitted, MAX_OMITTED)
