"""Feedback: true outcomes of predictions, live accuracy, and the export as training data."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from registry.records import ColumnStatistics
from services.inference.app import MAX_OTHER_BODY_BYTES
from services.inference.monitoring.feedback import bounded_error
from services.inference.monitoring.recent_predictions import MAX_ROWS_OF_ONE
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.labels import Bearer, event_of, predict, send_feedback
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import NUMBERS_ROW
from tests.integration.inference.trials import metric


class TestAccuracy:
    async def test_right_and_wrong_are_counted_by_version_and_nothing_is_billed(
        self,
        keeping: InferenceSettings,
        neighbours: Neighbours,
        account: str,
        bearer: Bearer,
    ) -> None:
        async with serving(keeping) as client:
            first, second = [await predict(client, bearer, NUMBERS_ROW) for _ in range(2)]
            right = await send_feedback(client, bearer, event_of(first), 1)
            wrong = await send_feedback(client, bearer, event_of(second), 0)

            version = first.headers["x-model-version"]
            assert right.json() == {
                "usage_event": event_of(first),
                "model": "numbers",
                "version": version,
                "correct": True,
                "repeated": False,
            }
            assert wrong.json()["correct"] is False
            for outcome in ("correct", "wrong"):
                labels = {"version": version, "outcome": outcome}
                assert await metric(client, "tollgate_feedback_rows_total", **labels) == 1

        assert sorted(neighbours.charged_to(account)) == sorted(map(event_of, (first, second)))

    async def test_a_repeat_counts_once_and_a_different_outcome_is_refused(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, NUMBERS_ROW))
            answers = [await send_feedback(client, bearer, event, 1) for _ in range(3)]
            other = await send_feedback(client, bearer, event, 0)

            assert [each.json()["repeated"] for each in answers] == [False, True, True]
            assert (other.status_code, other.json()["type"]) == (
                409,
                "urn:tollgate:problem:feedback_differs",
            )
            assert await metric(client, "tollgate_feedback_rows_total") == 1

    async def test_a_request_of_several_rows_needs_a_label_for_each(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, NUMBERS_ROW, NUMBERS_ROW))
            short = await send_feedback(client, bearer, event, [1])
            sent = await send_feedback(client, bearer, event, [1, 0])

            assert (short.status_code, sent.status_code) == (422, 200)
            assert sent.json()["correct"] is False
            for outcome in ("correct", "wrong"):
                assert await metric(client, "tollgate_feedback_rows_total", outcome=outcome) == 1

    async def test_regressions_are_measured_by_their_error(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            answer = await predict(client, bearer, [1.0, 2.0], model="price")
            [said] = answer.json()["predictions"]
            sent = await send_feedback(client, bearer, event_of(answer), said + 2, model="price")

            assert sent.json()["correct"] is None
            error = await metric(client, "tollgate_feedback_absolute_error_sum", model="price")
            assert error == pytest.approx(2, rel=1e-3)

    async def test_an_error_counts_at_most_ten_times_the_span_in_training(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            for label in (3.4e38, -3.4e38, 2.0):
                answer = await predict(client, bearer, [1.0, 1.0], model="price")
                sent = await send_feedback(client, bearer, event_of(answer), label, model="price")
                assert sent.status_code == 200

            error = await metric(client, "tollgate_feedback_absolute_error_sum", model="price")
            assert 100 < error < 2 * 10 * 50  # prices in training are from -10 to 30

    @pytest.mark.parametrize("label", ["1e308", "-1e308", "3.5e38", "1" + "0" * 300])
    async def test_a_number_beyond_float32_is_refused(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer, label: str
    ) -> None:
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, [1.0, 1.0], model="price"))
            for given in (label, f"[{label}]"):
                answer = await client.post(
                    "/v1/models/price:feedback",
                    content=f'{{"usage_event":"{event}","label":{given}}}',
                    headers={**bearer, "Content-Type": "application/json"},
                )
                assert answer.status_code == 422

            assert await metric(client, "tollgate_feedback_absolute_error_count") == 0

    @pytest.mark.parametrize(
        ("said", "true", "target", "expected"),
        [
            (1.0, 4.0, (0.0, 10.0), 3.0),
            (1.0, 1e38, (0.0, 10.0), 100.0),
            (0.0, 1e38, (1_000.0, 1_001.0), 10_010.0),
            (0.0, -1e38, (-5.0, -5.0), 50.0),
            (0.0, 1e38, (0.0, 0.0), 1e38),
            (0.0, 1e38, (None, None), 1e38),
            (0.0, 1e38, None, 1e38),
        ],
    )
    def test_an_error_is_bounded_by_the_span_of_the_target(
        self,
        said: float,
        true: float,
        target: tuple[float | None, float | None] | None,
        expected: float,
    ) -> None:
        statistics = target and ColumnStatistics(
            name="price", kind="number", count=1, missing=0, min=target[0], max=target[1]
        )

        assert bounded_error(said, true, statistics) == expected


class TestRefusals:
    async def test_only_the_first_of_many_invalid_labels_is_reported(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            most = MAX_OTHER_BODY_BYTES // len("{},")
            answer = await send_feedback(client, bearer, str(uuid.uuid4()), [{}] * (most - 100))
            too_long = await send_feedback(client, bearer, str(uuid.uuid4()), [{}] * most)

        assert answer.status_code == 422
        assert len(answer.json()["errors"]) < 10
        assert too_long.status_code == 413

    @pytest.mark.costly
    async def test_a_foreign_or_unknown_prediction_is_404(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        stranger = {"Authorization": f"Bearer {neighbours.token()}"}
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, NUMBERS_ROW))
            await eventually(lambda: event in neighbours.charged)
            for answer in (
                await send_feedback(client, stranger, event, 1),
                await send_feedback(client, bearer, str(uuid.uuid4()), 1),
                await send_feedback(client, bearer, event, 1.0, model="price"),
                await send_feedback(client, bearer, event, 1, model="nothing"),
            ):
                assert answer.status_code == 404

            nobody = await send_feedback(client, {}, event, 1)
            other_scope = neighbours.token(scope="usage:read")
            unfit = await send_feedback(
                client, {"Authorization": f"Bearer {other_scope}"}, event, 1
            )
            assert (nobody.status_code, unfit.status_code) == (401, 403)

    @pytest.mark.parametrize("label", [2, True, "1", 1.0, None, [], {}, [1, 1]])
    async def test_an_unknown_label_is_422(
        self,
        keeping: InferenceSettings,
        neighbours: Neighbours,
        bearer: Bearer,
        store: Path,
        label: Any,
    ) -> None:
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, NUMBERS_ROW))

            answer = await send_feedback(client, bearer, event, label)

        assert answer.status_code == 422
        assert not list(store.rglob("*.json"))

    async def test_an_event_must_be_a_uuid(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        async with serving(keeping) as client:
            for event in ("../../x", "", str(uuid.uuid4()).upper()):
                assert (await send_feedback(client, bearer, event, 1)).status_code == 422

    async def test_a_store_that_cannot_be_written_is_503_and_counts_nothing(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer, store: Path
    ) -> None:
        store.symlink_to(store)  # a symlink loop, which no system can read
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, NUMBERS_ROW))
            answer = await send_feedback(client, bearer, event, 1)

            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert await metric(client, "tollgate_feedback_rows_total") == 0


class TestOtherProcesses:
    async def test_a_prediction_of_another_process_is_found_by_its_receipt(
        self, keeping: InferenceSettings, neighbours: Neighbours, account: str, bearer: Bearer
    ) -> None:
        blind = neighbours.token(account=account, scope="predict")
        async with serving(keeping) as one, serving(keeping) as other:
            answer = await predict(one, bearer, NUMBERS_ROW)
            await eventually(lambda: event_of(answer) in neighbours.charged)

            without = await send_feedback(
                other, {"Authorization": f"Bearer {blind}"}, event_of(answer), 1
            )
            sent = await send_feedback(other, bearer, event_of(answer), 1)
            again = await send_feedback(one, bearer, event_of(answer), 1)

            assert without.status_code == 403
            assert sent.json()["version"] == answer.headers["x-model-version"]
            assert sent.json()["correct"] is None
            assert again.json()["repeated"]
            name = "tollgate_feedback_rows_total"
            assert await metric(other, name, outcome="unjudged") == 1
            assert await metric(one, name) == 0

    async def test_a_prediction_that_was_not_kept_is_found_by_its_receipt(
        self, keeping: InferenceSettings, neighbours: Neighbours, bearer: Bearer
    ) -> None:
        rows = MAX_ROWS_OF_ONE + 1
        async with serving(keeping) as client:
            answer = await predict(client, bearer, *[NUMBERS_ROW] * rows)
            await eventually(lambda: event_of(answer) in neighbours.charged)

            result = await send_feedback(client, bearer, event_of(answer), [1] * rows)

        assert (result.status_code, result.json()["correct"]) == (200, None)
