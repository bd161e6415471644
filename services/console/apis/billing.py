"""What the console asks billing. Amounts are decimal strings."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from services.console.apis.calls import Api, ApiProblem, read_json

Document = dict[str, Any]


async def list_plans(billing: Api, *, token: str | None) -> list[Document]:
    """Return the plans that the visitor may see, with the account's own."""
    plans: list[Document] = (await billing.get("/plans", token=token))["plans"]
    return plans


async def find_subscription(
    billing: Api, *, token: str, account: str | None = None
) -> Document | None:
    """Return the plan that the account is on; None without one.

    Args:
        account: another one, for administrators.
    """
    parameters = {"account": account} if account else {}
    try:
        found: Document = await billing.get("/subscription", token=token, params=parameters)
    except ApiProblem as problem:
        if problem.code == "subscription_not_found":
            return None
        raise
    return found


async def subscribe(billing: Api, *, token: str, plan: str) -> Document:
    """Put the account on a plan; return its subscription."""
    answer = await billing.call("PUT", "/subscription", token=token, json={"plan": plan})
    subscription: Document = read_json(answer, api=billing.name)
    return subscription


async def read_usage(
    billing: Api, *, token: str, group_by: str, since: str, until: str
) -> Document:
    """Return the account's usage between two times, in buckets."""
    parameters = {"group_by": group_by, "from": since, "to": until}
    usage: Document = await billing.get("/usage", token=token, params=parameters)
    return usage


async def read_balance(billing: Api, *, token: str) -> Document:
    """Return the account's balance."""
    balance: Document = await billing.get("/balance", token=token)
    return balance


async def preview_invoice(billing: Api, *, token: str) -> Document:
    """Return the open month as an invoice would be now."""
    preview: Document = await billing.get("/invoices/preview", token=token)
    return preview


async def list_invoices(billing: Api, *, token: str, cursor: str | None) -> Document:
    """Return a page of the account's invoices, newest first, and the `next_cursor`."""
    parameters = {"limit": 25} | ({"cursor": cursor} if cursor else {})
    invoices: Document = await billing.get("/invoices", token=token, params=parameters)
    return invoices


async def read_invoice(billing: Api, *, token: str, invoice: str) -> Document:
    """Return an invoice."""
    document: Document = await billing.get(f"/invoices/{quote(invoice, safe='')}", token=token)
    return document


async def download_invoice(
    billing: Api, *, token: str, invoice: str, media_type: str
) -> httpx.Response:
    """Return an invoice as a file."""
    path = f"/invoices/{quote(invoice, safe='')}"
    return await billing.call("GET", path, token=token, headers={"Accept": media_type}, timeout=30)


async def find_profile(billing: Api, *, token: str) -> Document:
    """Return who the account's invoices are addressed to.

    Raises:
        ApiProblem: 404 if the account has no profile yet; otherwise as `Api.call`.
    """
    profile: Document = await billing.get("/billing-profile", token=token)
    return profile


async def store_profile(billing: Api, *, token: str, profile: Mapping[str, str]) -> None:
    """Store who the account's invoices are addressed to."""
    await billing.call("PUT", "/billing-profile", token=token, json=dict(profile))


async def export_usage(billing: Api, *, token: str, period: str) -> httpx.Response:
    """Return a month's events as CSV."""
    parameters = {"period": period, "format": "csv"}
    return await billing.call("GET", "/exports/usage", token=token, params=parameters, timeout=60)


def price_of(plan: Mapping[str, Any], model: str) -> Document | None:
    """Return a plan's price of a model: its own, or that of all others; None without one."""
    prices: Sequence[Document] = plan["prices"]
    by_model = {price["model"]: price for price in prices}
    return by_model.get(model) or by_model.get(None)


def applicable_plan(plans: Sequence[Document]) -> Document | None:
    """Return the plan of the account that sees these plans, or the default one, or None."""
    own = next((plan for plan in plans if plan.get("current")), None)
    return own or next((plan for plan in plans if plan["default"]), None)
