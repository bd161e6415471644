"""Accounts of the clients, and what they have been billed for."""

from collections.abc import Callable
from decimal import Decimal

from harness.accounts import (
    Account,
)
from harness.faulty_proxy import Proxy
from harness.platform import Platform
from tests.unit.client.callers import Caller

NANO = Decimal(10) ** 9
TIMEOUT_S = 120.0
OpenClient = Callable[..., Caller]
Away = tuple[Proxy, str]

OTHER = [12.4, 0.9, 1.4, 10.6, 88, 2.0, 0.6, 0.28, 0.4, 1.9, 1.05, 1.8, 520]


def key_of(platform: Platform, account: Account) -> str:
    with platform.client("auth", account.token) as auth:
        key: str = auth.post("/api-keys", json={"name": "x"}).raise_for_status().json()["key"]
    return key


def billed(platform: Platform, account: Account) -> tuple[int, int]:
    """Return the requests and rows that an account has been billed for."""
    total = platform.usage(account.token)
    return total["requests"], total["rows"]
