"""The log of refused predictions."""

from structlog.testing import capture_logs

from services.common.errors import NotFound, Unavailable
from services.inference.api.admission import Saturated
from services.inference.api.refusals import RefusalLog


def test_of_a_flood_one_line_a_second_is_logged() -> None:
    now = 0.0
    refusals = RefusalLog(clock=lambda: now)

    with capture_logs() as lines:
        for number in range(2_500):
            now = number / 1_000
            refusals.add(Saturated("Full."), path="/p", status=503, request_id=str(number))

    assert [(each["request_id"], each["left_out"]) for each in lines] == [
        ("0", 0),
        ("1000", 999),
        ("2000", 999),
    ]


def test_another_reason_has_lines_of_its_own() -> None:
    refusals = RefusalLog(clock=lambda: 0.0)

    with capture_logs() as lines:
        for error, status in ((Saturated("Full."), 503), (Unavailable("Away."), 503)):
            refusals.add(error, path="/p", status=status, request_id="r")

    assert [each["code"] for each in lines] == ["saturated", "unavailable"]


def test_refusals_for_other_reasons_are_all_logged() -> None:
    refusals = RefusalLog(clock=lambda: 0.0)

    with capture_logs() as lines:
        for _ in range(3):
            refusals.add(NotFound("Nothing."), path="/p", status=404, request_id="r")

    assert len(lines) == 3
