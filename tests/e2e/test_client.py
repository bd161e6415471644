"""The client library against the real services."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from harness.accounts import (
    Account,
    new_account,
    new_prepaid_account,
    put_on_plan,
    store_plan,
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
PRICE = Decimal(PER_REQUEST + PER_ROW) / NANO
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
def open_client(platform: Platform, account: Account, kind: str) -> Iterator[Callable[..., Caller]]:
    """Return a client of a new account: `open_client(**options)`."""
    key = key_of(platform, account)
    opened: list[Caller] = []

    def open_(base_url: str | None = None, **options: Any) -> Caller:
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


@contextmanager
def behind_a_proxy(platform: Platform) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy in front of inference, and an address where clients discover it."""
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


def test_a_prediction_comes_with_its_receipt(
    platform: Platform, account: Account, open_client: Callable[..., Caller]
) -> None:
    client = open_client()

    prediction = client.predict("wine", [WINE, OTHER], probabilities=True)

    assert prediction.predictions == [0, 1]
    assert [round(sum(row), 6) for row in prediction.probabilities] == [1, 1]
    assert prediction.receipt.model == "wine"
    assert prediction.receipt.currency == "USD"
    assert Decimal(prediction.receipt.amount) == PRICE + Decimal(PER_ROW) / NANO
    eventually(lambda: billed(platform, account) == (1, 2))
    with platform.client("billing", account.token) as billing:
        event = billing.get(f"/usage/events/{prediction.receipt.event_id}").json()
    assert event["amount"] == prediction.receipt.amount
    assert event["version"] == prediction.receipt.version
