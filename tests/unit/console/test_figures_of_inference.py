"""What administrators read from inference's metrics."""

import pytest

from services.console.admin.health import judge_drift, order_journals
from services.console.apis.admin_inference import parse_figures

METRICS = """
tollgate_inference_predictions_total{model="wine",version="v1"} 12.0
tollgate_inference_predictions_created{model="wine",version="v1"} 1.79e+09
tollgate_feedback_rows_total{model="wine",outcome="correct",version="v1"} 3.0
tollgate_feedback_rows_total{model="wine",outcome="wrong",version="v1"} 1.0
tollgate_canary_requests_total{model="wine",outcome="answered",version="v2"} 5.0
tollgate_drift_rows{model="wine",version="v1"} 500.0
tollgate_drift_prediction_psi{model="wine",version="v1"} 0.3
tollgate_drift_column_psi{column="a",model="wine",version="v1"} 0.05
tollgate_drift_column_psi{column="b",model="wine",version="v1"} NaN
tollgate_feedback_absolute_error_count{model="price",version="v9"} 4.0
tollgate_feedback_absolute_error_sum{model="price",version="v9"} 10.0
process_open_fds 21.0
"""


def test_the_figures_of_each_version_are_read() -> None:
    figures = parse_figures(METRICS)

    live, canary, price = (
        figures[key] for key in [("wine", "v1"), ("wine", "v2"), ("price", "v9")]
    )
    assert live.predictions == 12
    assert live.accuracy == 0.75
    assert (live.drift_rows, live.prediction_drift) == (500, 0.3)
    assert live.column_drift == {"a": 0.05}
    assert canary.canary == {"answered": 5}
    assert canary.accuracy is None
    assert price.mean_error == 2.5


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
