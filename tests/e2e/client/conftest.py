"""Clients of new accounts, directly or through faults."""

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from harness.accounts import (
    Account,
    new_account,
)
from harness.faulty_proxy import Proxy
from harness.http_servers import Response, serving
from harness.platform import Platform
from harness.ports import free_port
from harness.samples import WINE
from tests.e2e.client.accounts import OTHER, TIMEOUT_S, OpenClient, key_of
from tests.unit.client.callers import KINDS, Caller


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which client: the synchronous or the asynchronous one."""
    return str(request.param)


@pytest.fixture
def account(platform: Platform) -> Account:
    return new_account(platform)


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
