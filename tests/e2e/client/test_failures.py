"""What the client library does when a call cannot succeed, or not at once."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from harness.accounts import (
    Account,
    add_credit,
    put_on_plan,
    store_plan,
    store_prepaid_plan,
)
from harness.faulty_proxy import Fault
from harness.plans import PER_REQUEST, PER_ROW, plan
from harness.platform import Platform
from harness.ports import free_port
from harness.samples import WINE
from harness.waiting import eventually
from tests.e2e.client.accounts import NANO, OTHER, TIMEOUT_S, Away, OpenClient, billed
from tests.unit.client.callers import Caller
from tollgate_client import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    PaymentRequiredError,
    RateLimitError,
    UnavailableError,
)


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
