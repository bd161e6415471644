"""The accounts of a run: postpaid, prepaid with plenty of credit, and prepaid with little."""

from typing import Any
from uuid import uuid4

import httpx

from chaos.load import Account, Unanswered
from cli.local import state
from harness.platform import Platform
from services.common.contracts import format_amount

PER_REQUEST = 500_000
PER_ROW = 100_000
"""The local plan's price, in 10⁻⁹ of the unit; the prepaid plan has the same."""
PLENTY = 1_000 * 10**9
LITTLE = 300 * (PER_REQUEST + PER_ROW)

_PREPAID: dict[str, Any] = {
    "name": "Prepaid",
    "currency": "USD",
    "billing": "prepaid",
    "prices": [
        {
            "model": None,
            "included_requests": 0,
            "tiers": [
                {
                    "up_to_requests": None,
                    "per_request": format_amount(PER_REQUEST),
                    "per_row": format_amount(PER_ROW),
                }
            ],
        }
    ],
    "rate_limit": None,
}


def admin_token(platform: Platform) -> str:
    """Log in as the administrator of the installation."""
    return platform.token(**state.credentials(platform.home)["admin"])


def postpaid(platform: Platform) -> Account:
    """Return a new account on the local plan."""
    token = platform.new_token()
    with platform.client("billing", token) as billing:
        account: str = _checked(billing.get("/usage"), 200)["account"]
    return Account(account, token)


def prepaid(platform: Platform, *, credit: int, may_run_dry: bool = False) -> Account:
    """Return a new account with `credit`, in 10⁻⁹ of the unit, on a prepaid plan."""
    account = postpaid(platform)
    with platform.client("billing", admin_token(platform)) as billing:
        plan = prepaid_plan(billing)
        _checked(billing.put(f"/accounts/{account.id}/plan", json={"plan": plan}), 200)
        money = {"amount": format_amount(credit), "currency": "USD", "reason": "chaos"}
        headers = {"Idempotency-Key": str(uuid4())}
        _checked(billing.post(f"/accounts/{account.id}/credits", json=money, headers=headers), 201)
    account.credit, account.may_run_dry = credit, may_run_dry
    return account


def prepaid_plan(billing: httpx.Client) -> str:
    """Store the prepaid plan with an administrator's client; return its id."""
    plan: str = _checked(billing.post("/plans", json=_PREPAID), 201)["id"]
    return plan


def _checked(answer: httpx.Response, status: int) -> dict[str, Any]:
    if answer.status_code != status:
        raise Unanswered(f"{answer.request.url.path}: {answer.status_code}: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body
