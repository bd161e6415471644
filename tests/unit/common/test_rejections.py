"""Rejected credentials are noted without a call, and reported in bounded reports."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.contracts import MAX_REJECTIONS, RejectionReport
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.guards import authenticate
from services.common.identity.rejection_feed import report_rejections
from services.common.identity.rejections import RejectionLog
from services.common.identity.tokens import TokenVerifier
from tests.unit.common.test_key_verifier import NoKeys

ADDRESS = "203.0.113.9"
BEARER = (b"authorization", b"Bearer nonsense")


class Auth:
    """Auth as a service reports to it; it is unavailable for the first calls."""

    def __init__(self, *, away: int = 0, calls: int = 1) -> None:
        self._away = away
        self._calls = calls
        self.reports: list[RejectionReport] = []

    async def report_rejections(self, report: RejectionReport) -> None:
        self._calls -= 1
        if self._away:
            self._away -= 1
            raise Unavailable("away")
        self.reports.append(report)
        if not self._calls:
            raise asyncio.CancelledError

    async def receive(self, rejections: RejectionLog) -> None:
        with pytest.raises(asyncio.CancelledError):
            await report_rejections(self, rejections, every_s=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers",
    [
        [BEARER],
        [(b"authorization", b"Basic Og==")],
        [(b"x-api-key", b"nonsense")],
        [BEARER, BEARER],
        [BEARER, (b"x-api-key", b"nonsense")],
    ],
)
async def test_malformed_credentials_are_noted(headers: list[tuple[bytes, bytes]]) -> None:
    rejections = RejectionLog()
    verifier = TokenVerifier(NoKeys(), issuer="x", rejections=rejections)

    with pytest.raises(Unauthenticated):
        await authenticate(verifier, headers, address=ADDRESS)

    report = rejections.take()
    assert report is not None
    assert [each.address for each in report.rejections] == [ADDRESS]


async def test_a_request_without_credentials_is_no_attempt() -> None:
    rejections = RejectionLog()
    verifier = TokenVerifier(NoKeys(), issuer="x", rejections=rejections)

    with pytest.raises(Unauthenticated):
        await authenticate(verifier, [(b"host", b"x")], address=ADDRESS)

    assert rejections.take() is None


@given(st.lists(st.sampled_from(["note", "report", "fail"]), max_size=300))
def test_a_report_is_bounded_and_no_rejection_is_lost(steps: list[str]) -> None:
    rejections, noted, counted = RejectionLog(), 0, 0
    for step in [*steps, "report"]:
        if step == "note":
            for _ in range(7):
                rejections.note(ADDRESS)
            noted += 7
        elif (report := rejections.take()) is not None:
            assert len(report.rejections) <= MAX_REJECTIONS
            if step == "fail":
                rejections.put_back(report)
            else:
                counted += len(report.rejections) + report.omitted

    assert counted == noted


async def test_what_is_noted_while_auth_is_away_is_reported_once_it_is_back() -> None:
    rejections, auth = RejectionLog(), Auth(away=2, calls=3)
    rejections.note("x" * 1000)

    await auth.receive(rejections)

    [report] = auth.reports
    assert [len(each.address) for each in report.rejections] == [64]
    assert rejections.take() is None
