"""New accounts: on the default plan, or with prepaid credit."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from harness.plans import PER_REQUEST, PER_ROW, plan
from harness.platform import Platform
from services.common.contracts import format_amount

PLENTY = 1_000 * 10**9
"""Credit for every request of a run, in 10⁻⁹ of the unit."""
LITTLE = 300 * (PER_REQUEST + PER_ROW)
"""Credit for some 300 requests, in 10⁻⁹ of the unit."""

_PREPAID = plan(name="Prepaid", billing="prepaid")


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and a token of its only user."""

    id: str
    token: str


def new_account(platform: Platform) -> Account:
    """Return a new account on the default plan."""
    token = platform.new_token()
    with platform.client("billing", token) as billing:
        account: str = billing.get("/usage").raise_for_status().json()["account"]
    return Account(account, token)


def new_prepaid_account(platform: Platform, *, credit: int) -> Account:
    """Return a new prepaid account with `credit` (10⁻⁹ of the unit), at the local plan's price."""
    account = new_account(platform)
    with platform.client("billing", platform.admin_token()) as billing:
        put_on_plan(billing, account.id, plan_id=store_prepaid_plan(billing))
        add_credit(billing, account.id, credit)
    return account


def store_prepaid_plan(billing: httpx.Client) -> str:
    """Store a prepaid plan at the local plan's price with an administrator's client.

    Returns:
        The plan's id, which is the same every time.
    """
    return store_plan(billing, _PREPAID)


def store_plan(billing: httpx.Client, document: dict[str, Any]) -> str:
    """Store a plan with an administrator's client; return its id."""
    stored: str = billing.post("/plans", json=document).raise_for_status().json()["id"]
    return stored


def put_on_plan(billing: httpx.Client, account: str, *, plan_id: str) -> None:
    """Put an account on a stored plan with an administrator's client."""
    billing.put(f"/accounts/{account}/plan", json={"plan": plan_id}).raise_for_status()


def add_credit(billing: httpx.Client, account: str, amount: int) -> None:
    """Credit an amount, in 10⁻⁹ of the unit, to an account with an administrator's client."""
    billing.post(
        f"/accounts/{account}/credits",
        json={"amount": format_amount(amount), "currency": "USD", "reason": "A top-up."},
        headers={"Idempotency-Key": str(uuid4())},
    ).raise_for_status()
