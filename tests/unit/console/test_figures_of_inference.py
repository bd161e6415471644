"""What administrators read from inference's metrics."""

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.admin.health import judge_drift, order_journals
from services.console.apis.admin_inference import Durations, parse_figures

METRICS = """
tollgate_inference_predictions_total{model="wine",version="v1"} 12.0
tollgate_inference_predictions_created{model="wine",version="v1"} 1.79e+09
tollgate_feedback_rows_total{model="wine",outcome="correct",version="v1"} 3.0
tollgate_feedback_rows_total{model="wine",outcome="wrong",version="v1"} 1.0
tollgate_model_canary_percent{model="wine",version="v2"} 12.5
tollgate_canary_requests_total{model="wine",outcome="answered",version="v2"} 5.0
tollgate_drift_rows{model="wine",version="v1"} 500.0
tollgate_drift_prediction_psi{model="wine",version="v1"} 0.3
tollgate_drift_column_psi{column="a",model="wine",version="v1"} 0.05
tollgate_drift_column_psi{column="b",model="wine",version="v1"} NaN
tollgate_feedback_absolute_error_count{model="price",version="v9"} 4.0
tollgate_feedback_absolute_error_sum{model="price",version="v9"} 10.0
process_open_fds 21.0
tollgate_inference_failures_total{model="wine",status="422"} 6.0
tollgate_inference_failures_total{model="wine",status="503"} 2.0
tollgate_inference_failures_total{model="",status="404"} 1.0
"""

BUCKETS = {
    "/v1/models/{model}:predict": {"0.01": 50, "0.1": 90, "+Inf": 90},
    "/v2/models/{model}/infer": {"0.01": 0, "0.1": 10, "+Inf": 10},
    "/v1/models/{model}:feedback": {"0.01": 0, "0.1": 0, "+Inf": 99},
}
METRICS += "\n".join(
    f'http_request_duration_seconds_bucket{{le="{le}",method="POST",route="{route}"}} {count}'
    for route, counts in BUCKETS.items()
    for le, count in counts.items()
)


def test_the_figures_of_each_version_are_read() -> None:
    figures = parse_figures(METRICS)

    live, canary, price = (
        figures.of_version(*key) for key in [("wine", "v1"), ("wine", "v2"), ("price", "v9")]
    )
    assert live.predictions == 12
    assert live.accuracy == 0.75
    assert (live.drift_rows, live.prediction_drift) == (500, 0.3)
    assert live.column_drift == {"a": 0.05}
    assert (canary.canary, canary.canary_percent) == ({"answered": 5}, 12.5)
    assert canary.accuracy is None
    assert price.mean_error == 2.5
    assert figures.of_version("wine", "v9").predictions == 0


def test_what_was_not_answered_is_the_callers_or_the_platforms() -> None:
    figures = parse_figures(METRICS)

    assert (figures.answered, figures.refused, figures.failed) == (12, 7, 2)
    assert (figures.of_model("wine").failed, figures.of_model("price").failed) == (2, 0)
    assert figures.error_share == 2 / 21
    assert parse_figures("").error_share is None


def test_a_quantile_of_all_predictions_is_interpolated() -> None:
    durations = parse_figures(METRICS).durations

    assert durations.quantile(0.5) == pytest.approx(0.01)
    assert durations.quantile(0.75) == pytest.approx(0.055)
    assert durations.quantile(0.99) == pytest.approx(0.0982)
    assert parse_figures("").durations.quantile(0.99) is None


@given(
    counts=st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
)
def test_a_larger_share_never_takes_less_time(counts: list[int], shares: list[float]) -> None:
    totals = accumulate(counts)
    durations = Durations(dict(zip((0.01, 0.1, 1.0, math.inf), totals, strict=True)))

    less, more = (durations.quantile(share) or 0.0 for share in shares)

    assert 0 <= less <= more + 1e-9 <= 1.0 + 1e-9


def test_what_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Ii]nvalid|labels|unpack|float"):
        parse_figures('{"status": "ok"}')


@pytest.mark.parametrize(
    ("index", "text"),
    [(None, "Not measured yet"), (0.1, "Stable"), (0.2, "Moving"), (0.3, "Drifted")],
)
def test_drift_has_a_word(index: float | None, text: str) -> None:
    assert judge_drift(index).text == text


def test_journals_with_gaps_come_first() -> None:
    def journal(name: str, state: str, *missing: list[int]) -> dict[str, object]:
        return {"journal": name, "state": state, "missing": list(missing), "lag_seconds": 1.5}

    found = order_journals(
        [journal("a", "closed"), journal("b", "open"), journal("c", "lost", [2, 4], [7, 7])]
    )

    assert [each["journal"] for each in found.journals] == ["c", "b", "a"]
    assert (found.with_gaps, found.missing, found.lag_s) == (1, 4, 1.5)
