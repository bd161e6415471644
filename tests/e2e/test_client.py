"""The client library against the real services."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from harness.accounts import (
    Account,
    add_credit,
    new_account,
    put_on_plan,
    store_plan,
    store_prepaid_plan,
)
from harness.faulty_proxy import Fault, Proxy
from harness.http_servers import Response, serving
from harness.plans import PER_REQUEST, PER_ROW, plan
from harness.platform import Platform
from harness.ports import free_port
from harness.samples import WINE
from harness.waiting import eventually
from tests.unit.client.callers import KINDS, Caller
from tollgate_client import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    PaymentRequiredError,
    RateLimitError,
    UnavailableError,
)

NANO = Decimal(10) ** 9
TIMEOUT_S = 120.0
OpenClient = Callable[..., Caller]
Away = tuple[Proxy, str]

OTHER = [12.4, 0.9, 1.4, 10.6, 88, 2.0, 0.6, 0.28, 0.4, 1.9, 1.05, 1.8, 520]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which client: the synchronous or the asynchronous one."""
    return str(request.param)


@pytest.fixture
def account(platform: Platform) -> Account:
    return new_account(platform)


def key_of(platform: Platform, account: Account) -> str:
    with platform.client("auth", account.token) as auth:
        key: str = auth.post("/api-keys", json={"name": "x"}).raise_for_status().json()["key"]
    return key


@pytest.fixture
def open_client(platform: Platform, account: Account, kind: str) -> Iterator[OpenClient]:
    """Return a client of a new account: `open_client(**options)`."""
    key = key_of(platform, account)
    opened: list[Caller] = []

    def open_(base_url: str | None = None, **options: Any) -> Caller:
        options = {"timeout": TIMEOUT_S} | options
        opened.append(Caller(kind, key, base_url or platform.urls["auth"], **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.__exit__()


@pytest.fixture
def columns(platform: Platform, account: Account) -> list[str]:
    """The names of the sample's columns."""
    with platform.client("inference", account.token) as inference:
        signature = inference.get("/v1/models/wine").json()["signature"]
    return [column["name"] for column in signature["columns"]]


@pytest.fixture
def frame(columns: list[str]) -> pd.DataFrame:
    """Two rows with an index of their own."""
    index = pd.Index(["first", "second"], name="bottle")
    return pd.DataFrame([WINE, OTHER], columns=columns, index=index)


@pytest.fixture
def away(platform: Platform) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of inference, and an address where clients discover it."""
    with Proxy(port=free_port()) as proxy:
        proxy.upstream = platform.ports["inference"]
        addresses = {"inference": proxy.url, "billing": platform.urls["billing"]}
        body = json.dumps(addresses).encode()
        with serving(lambda _: Response(200, body)) as url:
            yield proxy, url


def billed(platform: Platform, account: Account) -> tuple[int, int]:
    """Return the requests and rows that an account has been billed for."""
    total = platform.usage(account.token)
    return total["requests"], total["rows"]


def limit_rate(platform: Platform, account: Account, *, per_second: float) -> None:
    """Put an account on a plan that allows one request at once."""
    limited = plan(rate_limit={"per_second": per_second, "burst": 1})
    with platform.client("billing", platform.admin_token()) as billing:
        put_on_plan(billing, account.id, plan_id=store_plan(billing, limited))


def unless_unpaid(client: Caller, rows: list[Any], key: str | None) -> Any:
    """Repeat a call; return None while its credit has not reached inference yet."""
    try:
        return client.predict("wine", rows, idempotency_key=key)
    except PaymentRequiredError:
        return None


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


class TestErrors:
    def test_an_unknown_model_is_not_found(self, open_client: OpenClient) -> None:
        with pytest.raises(NotFoundError, match="'wines' not found") as caught:
            open_client().predict("wines", [WINE])

        assert caught.value.status == 404
        assert caught.value.code == "model_not_found"
        assert caught.value.request_id

    def test_a_wrong_key_is_refused(self, platform: Platform, kind: str) -> None:
        key = "tg_live_" + "0" * 32 + "_000000"

        with (
            Caller(kind, key, platform.urls["inference"]) as client,
            pytest.raises(AuthenticationError) as caught,
        ):
            client.predict("wine", [WINE])

        assert caught.value.status == 401
        assert key not in repr(caught.value) + repr(client.client)

    def test_wrong_input_names_row_and_column(
        self, platform: Platform, account: Account, open_client: OpenClient, columns: list[str]
    ) -> None:
        good = dict(zip(columns, WINE, strict=True))
        wrong = good | {"hue": "red"}
        client = open_client(batch_rows=2)

        with pytest.raises(InvalidInputError) as caught:
            client.predict("wine", [good, good, good, wrong])

        assert caught.value.errors == [
            {
                "loc": ["instances", 3, "hue"],
                "msg": "Must be a number within the range of float32, or null.",
            }
        ]
        assert caught.value.partial is not None
        assert caught.value.partial.rows == 2
        eventually(lambda: billed(platform, account) == (1, 2))

    def test_who_cannot_pay_gets_what_was_paid_for_and_continues_for_free(
        self, platform: Platform, account: Account, open_client: OpenClient
    ) -> None:
        price = PER_REQUEST + 2 * PER_ROW
        with platform.client("billing", platform.admin_token()) as billing:
            put_on_plan(billing, account.id, plan_id=store_prepaid_plan(billing))
            add_credit(billing, account.id, price)
            client = open_client(batch_rows=2)
            rows = [WINE, OTHER, WINE]

            with pytest.raises(PaymentRequiredError) as caught:
                client.predict("wine", rows)
            error = caught.value
            add_credit(billing, account.id, price)
            again = eventually(lambda: unless_unpaid(client, rows, error.idempotency_key))

        assert error.partial is not None
        assert error.partial.rows == 2
        assert error.partial.result.predictions == [0, 1]
        assert Decimal(error.partial.receipt.amount) == Decimal(price) / NANO
        assert again.predictions == [0, 1, 0]
        assert again.receipt.parts[0]["event_id"] == error.partial.receipt.event_id
        eventually(lambda: billed(platform, account) == (2, 3))

    def test_a_rate_limit_that_outlasts_the_deadline_is_an_error(
        self, platform: Platform, account: Account, open_client: OpenClient
    ) -> None:
        limit_rate(platform, account, per_second=0.001)
        client = open_client()
        client.predict("wine", [WINE])

        with pytest.raises(RateLimitError) as caught:
            client.predict("wine", [WINE])

        assert caught.value.retry_after is not None
        assert caught.value.retry_after > TIMEOUT_S
        eventually(lambda: billed(platform, account) == (1, 1))

    def test_a_rate_limit_is_waited_for(
        self, platform: Platform, account: Account, open_client: OpenClient
    ) -> None:
        limit_rate(platform, account, per_second=1)
        client = open_client()

        for _ in range(3):
            client.predict("wine", [WINE])

        eventually(lambda: billed(platform, account) == (3, 3))


class TestFaults:
    def test_a_lost_answer_is_fetched_again_and_billed_once(
        self, platform: Platform, account: Account, open_client: OpenClient, away: Away
    ) -> None:
        proxy, url = away
        client = open_client(url, max_retries=100)
        client.models()
        proxy.fail("reply lost")

        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(client.predict, "wine", [WINE])
            eventually(lambda: billed(platform, account) == (1, 1))
            proxy.pass_on()
            prediction = calling.result()

        assert prediction.predictions == [0]
        client.predict("wine", [OTHER])
        eventually(lambda: billed(platform, account)[0] > 1)
        assert billed(platform, account) == (2, 2)

    @pytest.mark.parametrize("fault", ["reset", "500"])
    def test_a_fault_that_passes_is_not_noticed(
        self,
        platform: Platform,
        account: Account,
        open_client: OpenClient,
        away: Away,
        fault: Fault,
    ) -> None:
        proxy, url = away
        client = open_client(url, max_retries=100)
        client.models()
        proxy.fail(fault)

        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(client.predict, "wine", [WINE])
            eventually(lambda: proxy.hits > 1)
            proxy.pass_on()

            assert calling.result().predictions == [0]

        eventually(lambda: billed(platform, account) == (1, 1))

    @pytest.mark.parametrize("fault", ["hang", "trickle"])
    def test_a_call_ends_at_its_deadline(
        self, open_client: OpenClient, away: Away, fault: Fault
    ) -> None:
        proxy, url = away
        client = open_client(url)
        client.models()
        proxy.fail(fault)

        with pytest.raises(UnavailableError, match="did not answer in time") as caught:
            client.predict("wine", [WINE], timeout=0.5)

        assert caught.value.idempotency_key
        assert caught.value.status is None

    def test_a_service_that_is_not_there_is_unavailable(self, kind: str) -> None:
        url = f"http://127.0.0.1:{free_port()}"

        with (
            Caller(kind, "key", url, max_retries=1) as client,
            pytest.raises(UnavailableError, match="cannot connect to 127"),
        ):
            client.predict("wine", [WINE])


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


def test_threads_share_a_client(platform: Platform, account: Account) -> None:
    key = key_of(platform, account)

    with (
        Caller("sync", key, platform.urls["auth"]) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.predict("wine", [WINE]), range(40)))

    assert len({answer.receipt.event_id for answer in answers}) == 40
    eventually(lambda: billed(platform, account) == (40, 40))
