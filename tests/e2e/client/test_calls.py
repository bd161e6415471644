"""The client library against the real services."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from harness.accounts import (
    Account,
)
from harness.plans import PER_REQUEST, PER_ROW
from harness.platform import Platform
from harness.samples import WINE
from harness.waiting import eventually
from tests.e2e.client.accounts import NANO, OTHER, OpenClient, billed, key_of
from tests.unit.client.callers import Caller
from tollgate_client import (
    InvalidInputError,
    NotFoundError,
)


def test_a_prediction_comes_with_its_receipt(
    platform: Platform, account: Account, open_client: OpenClient
) -> None:
    client = open_client()

    prediction = client.predict("wine", [WINE, OTHER], probabilities=True)

    assert prediction.predictions == [0, 1]
    assert [round(sum(row), 6) for row in prediction.probabilities] == [1, 1]
    assert prediction.receipt.model == "wine"
    assert prediction.receipt.currency == "USD"
    assert Decimal(prediction.receipt.amount) == Decimal(PER_REQUEST + 2 * PER_ROW) / NANO
    eventually(lambda: billed(platform, account) == (1, 2))
    with platform.client("billing", account.token) as billing:
        event = billing.get(f"/usage/events/{prediction.receipt.event_id}").json()
    assert event["amount"] == prediction.receipt.amount
    assert event["version"] == prediction.receipt.version


def test_a_frame_becomes_a_frame_with_the_same_index(
    open_client: OpenClient, frame: pd.DataFrame
) -> None:
    client, before = open_client(), frame.copy()

    result = client.predict("wine", frame, probabilities=True, intervals=0.9)

    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_index_equal(result.index, frame.index)
    probabilities = [f"probability_{label}" for label in (0, 1, 2)]
    assert list(result.columns) == ["prediction", *probabilities, "label_set"]
    assert result["prediction"].dtype == "int64"
    assert result["prediction"].to_list() == [0, 1]
    assert {str(result[name].dtype) for name in probabilities} == {"float64"}
    assert 0 in result["label_set"].iloc[0]
    assert result.attrs["receipt"].model == "wine"


def test_a_version_can_be_named(open_client: OpenClient, frame: pd.DataFrame) -> None:
    client = open_client()
    version = client.predict("wine", [WINE]).receipt.version
    rows = [WINE, frame.iloc[1].to_dict()]

    live = client.predict("wine", frame, probabilities=True)
    by_list = client.predict("wine", rows[:1], version=version, probabilities=True)
    by_dict = client.predict("wine", rows[1:], version=version)
    by_frame = client.predict("wine", frame, version=version, probabilities=True)

    assert by_list.predictions == [0]
    assert by_list.receipt.version == version
    assert by_dict.predictions == [1]
    pd.testing.assert_frame_equal(by_frame, live)
    with pytest.raises(NotFoundError):
        client.predict("wine", rows[:1], version="20200101-000000")


def test_rows_are_explained(open_client: OpenClient, frame: pd.DataFrame) -> None:
    explained = open_client().explain("wine", frame, top=2)

    assert explained.predictions == [0, 1]
    assert [len(each.contributions) for each in explained.explanations] == [3, 3]
    assert explained.receipt.model == "wine"


def test_the_documents_of_the_api_are_found_from_any_service(
    platform: Platform, account: Account, open_client: OpenClient
) -> None:
    now = datetime.now(UTC)
    for url in platform.urls.values():
        client = open_client(url)

        assert "wine" in client.models()["models"]
        usage = client.usage(from_=now - timedelta(days=1), to=now, group_by="model")
        assert usage["account"] == account.id
        assert client.balance()["account"] == account.id


@pytest.mark.costly
def test_a_large_frame_goes_in_batches(
    platform: Platform, account: Account, open_client: OpenClient, frame: pd.DataFrame
) -> None:
    client = open_client(batch_rows=4_000)
    large = pd.concat([frame] * 5_000)

    result = client.predict("wine", large)

    assert result["prediction"].to_list() == [0, 1] * 5_000
    pd.testing.assert_index_equal(result.index, large.index)
    receipt = result.attrs["receipt"]
    assert len(receipt.parts) == 3
    assert Decimal(receipt.amount) == Decimal(3 * PER_REQUEST + 10_000 * PER_ROW) / NANO
    eventually(lambda: billed(platform, account) == (3, 10_000))


def test_more_rows_than_the_service_accepts_go_in_smaller_batches(
    platform: Platform, account: Account, open_client: OpenClient
) -> None:
    client = open_client(batch_rows=100_000)

    prediction = client.predict("wine", [WINE] * 10_001)

    assert prediction.predictions == [0] * 10_001
    eventually(lambda: billed(platform, account) == (2, 10_001))


def test_a_body_that_the_service_refuses_for_its_size_goes_in_pieces(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollgate_client.calls.MAX_BODY_BYTES", 2**30)
    too_large = [{"unknown": "x" * 1000}] * 9_000

    with pytest.raises(InvalidInputError) as caught:
        open_client().predict("wine", too_large)

    assert caught.value.status == 422  # the pieces were small enough to be read


def test_threads_share_a_client(platform: Platform, account: Account) -> None:
    key = key_of(platform, account)

    with (
        Caller("sync", key, platform.urls["auth"]) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.predict("wine", [WINE]), range(40)))

    assert len({answer.receipt.event_id for answer in answers}) == 40
    eventually(lambda: billed(platform, account) == (40, 40))
