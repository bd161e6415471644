"""What administrators ask billing. Amounts are decimal strings."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from services.console.apis.billing import Document
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, read_json

SLOW_S = 60.0
"""How long a page waits for what reads a whole month."""


async def read_usage(
    billing: Api, *, token: str, account: str, group_by: str, since: str | None = None
) -> Document:
    """Return an account's usage since a time, by default the start of this month."""
    parameters = {"account": account, "group_by": group_by} | ({"from": since} if since else {})
    return await _get(billing, "/usage", token=token, parameters=parameters)


async def read_usages(billing: Api, *, token: str, accounts: Sequence[str]) -> list[Document]:
    """Return what up to 100 accounts used on each day of this month, in their order.

    Raises:
        ApiUnavailable: also if billing is of a release that cannot say so.
        TokenRejected, ApiProblem: as `Api.call`.
    """
    if not accounts:
        return []
    found = await billing.get_newer(
        "/usage/accounts", token=token, params={"account": list(accounts)}
    )
    usages: list[Document] = found["accounts"]
    return usages


async def read_revenue(billing: Api, *, token: str, period: str) -> Document:
    """Return the revenue of a month such as `2026-10`, in `currencies`.

    Raises:
        ApiUnavailable: also if billing is of a release without revenue.
        TokenRejected, ApiProblem: as `Api.call`.
    """
    revenue: Document = await billing.get_newer("/revenue", token=token, params={"period": period})
    return revenue


async def read_balance(billing: Api, *, token: str, account: str) -> Document:
    """Return an account's balance."""
    return await _get(billing, "/balance", token=token, parameters={"account": account})


async def list_events(
    billing: Api, *, token: str, account: str, limit: int, cursor: str | None = None
) -> Document:
    """Return a page of an account's events, newest first, and the `next_cursor`."""
    parameters: dict[str, str | int] = {"account": account, "limit": limit, **_after(cursor)}
    return await _get(billing, "/usage/events", token=token, parameters=parameters)


async def find_event(billing: Api, *, token: str, account: str, event: str) -> Document | None:
    """Return an account's event; None if it has no such event."""
    try:
        return await _get(
            billing, f"/usage/events/{_part(event)}", token=token, parameters={"account": account}
        )
    except ApiProblem as problem:
        if problem.status == 404:
            return None
        raise


async def read_signed_event(billing: Api, *, token: str, account: str, event: str) -> Document:
    """Return what billing's signed receipt of an event states."""
    response = await billing.call(
        "GET",
        f"/usage/events/{_part(event)}",
        token=token,
        params={"account": account},
        headers={"Accept": "application/jose"},
    )
    try:
        payload = response.text.split(".")[1]
        claims: Document = orjson.loads(
            base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        )
    except (ValueError, IndexError) as error:
        raise ApiUnavailable(billing.name) from error
    return claims


async def list_invoices(
    billing: Api, *, token: str, account: str, cursor: str | None = None, limit: int = 25
) -> Document:
    """Return a page of an account's invoices, newest first, and the `next_cursor`."""
    parameters: dict[str, str | int] = {"account": account, "limit": limit, **_after(cursor)}
    return await _get(billing, "/invoices", token=token, parameters=parameters)


async def find_preview(
    billing: Api, *, token: str, account: str, period: str | None = None
) -> Document | None:
    """Return a month that is not closed as an invoice would be now.

    None if the month is closed, or there is nothing to preview.
    """
    parameters = {"account": account} | ({"period": period} if period else {})
    try:
        return await _get(billing, "/invoices/preview", token=token, parameters=parameters)
    except ApiProblem as problem:
        if problem.status in (404, 409):
            return None
        raise


async def is_closed(billing: Api, *, token: str, account: str, period: str) -> bool:
    """Return whether a month is closed.

    Args:
        account: any account; the answer is the same for all.
    """
    try:
        parameters = {"account": account, "period": period}
        await _get(billing, "/invoices/preview", token=token, parameters=parameters)
    except ApiProblem as problem:
        if problem.code == "month_closed":
            return True
        if problem.status != 404:
            raise
    return False


async def run_billing(
    billing: Api, *, token: str, period: str, force: bool = False, reason: str | None = None
) -> Document:
    """Close a month and return its invoices; a month that is closed already stays as it is."""
    body: Document = {"period": period}
    if force:
        body |= {"force": True, "reason": reason}
    response = await billing.call("POST", "/billing-runs", token=token, json=body, timeout=SLOW_S)
    run: Document = read_json(response, api=billing.name)
    return run


async def list_credit_notes(billing: Api, *, token: str, invoice: str) -> list[Document]:
    """Return the credit notes of an invoice, oldest first."""
    path = f"/invoices/{_part(invoice)}/credit-notes"
    notes: list[Document] = (await billing.get(path, token=token))["credit_notes"]
    return notes


async def create_credit_note(
    billing: Api, *, token: str, invoice: str, amount: str | None, reason: str, key: str
) -> Document:
    """Give an invoice back, by an amount or, without one, all that is left of it.

    Args:
        key: the `Idempotency-Key`.
    """
    body = {"reason": reason} | ({"amount": amount} if amount else {})
    path = f"/invoices/{_part(invoice)}/credit-notes"
    return await _post(billing, path, token=token, body=body, key=key)


async def add_credit(
    billing: Api, *, token: str, account: str, credit: Mapping[str, str], key: str
) -> Document:
    """Add prepaid money to an account: `amount`, `currency` and `reason`.

    Args:
        key: the `Idempotency-Key`.
    """
    path = f"/accounts/{_part(account)}/credits"
    return await _post(billing, path, token=token, body=credit, key=key)


async def list_recalls(billing: Api, *, token: str) -> list[Document]:
    """Return the recalls, newest first."""
    recalls: list[Document] = (await billing.get("/recalls", token=token))["recalls"]
    return recalls


async def create_recall(
    billing: Api, *, token: str, recall: Mapping[str, str], key: str
) -> Document:
    """Credit every request that a version answered: `model`, `version` and `reason`.

    Args:
        key: the `Idempotency-Key`.
    """
    return await _post(billing, "/recalls", token=token, body=recall, key=key)


async def assign_plan(
    billing: Api, *, token: str, account: str, plan: str, effective_from: str | None
) -> None:
    """Put an account on a plan, from a time in RFC 3339 or from now on."""
    body = {"plan": plan} | ({"effective_from": effective_from} if effective_from else {})
    await billing.call("PUT", f"/accounts/{_part(account)}/plan", token=token, json=body)


async def create_plan(billing: Api, *, token: str, plan: Mapping[str, Any]) -> Document:
    """Store a plan; the same plan again is the same plan."""
    return await _post(billing, "/plans", token=token, body=plan)


async def preview_plan(
    billing: Api,
    *,
    token: str,
    plan: str,
    period: str,
    account: str | None = None,
    timeout_s: float = SLOW_S,
) -> Document:
    """Return what each account paid in a month, and would have paid under a plan."""
    body = {"plan": plan, "period": period} | ({"account": account} if account else {})
    response = await billing.call(
        "POST", "/plans/preview", token=token, json=body, timeout=timeout_s
    )
    preview: Document = read_json(response, api=billing.name)
    return preview


async def list_journals(billing: Api, *, token: str) -> list[Document]:
    """Return every journal with what has arrived and what is missing."""
    journals: list[Document] = (await billing.get("/sources", token=token))["sources"]
    return journals


async def _get(
    billing: Api, path: str, *, token: str, parameters: Mapping[str, str | int]
) -> Document:
    document: Document = await billing.get(path, token=token, params=dict(parameters))
    return document


async def _post(
    billing: Api, path: str, *, token: str, body: Mapping[str, Any], key: str | None = None
) -> Document:
    headers = {"Idempotency-Key": key} if key else {}
    response = await billing.call("POST", path, token=token, json=dict(body), headers=headers)
    document: Document = read_json(response, api=billing.name)
    return document


def _after(cursor: str | None) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}


def _part(text: str) -> str:
    return quote(text, safe="")
