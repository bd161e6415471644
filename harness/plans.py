"""Plans as clients send them: the local plan, and variations of it."""

import json
from typing import Any

from harness.programs import ROOT
from services.common.contracts import parse_amount

LOCAL_PLAN_FILE = ROOT / "services/billing/plans/local_plan.json"
LOCAL_PLAN: dict[str, Any] = json.loads(LOCAL_PLAN_FILE.read_text())
"""Postpaid, with one price for all models."""
_TIER = LOCAL_PLAN["prices"][0]["tiers"][0]
PER_REQUEST, PER_ROW = parse_amount(_TIER["per_request"]), parse_amount(_TIER["per_row"])
"""The local plan's price, in 10⁻⁹ of the unit."""


def plan(*prices: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a plan with these prices, or with the local plan's."""
    return LOCAL_PLAN | ({"prices": list(prices)} if prices else {}) | members


def price(
    *tiers: tuple[int | None, str, str], model: str | None = None, included: int = 0
) -> dict[str, Any]:
    """Return a price with tiers `(up_to_requests, per_request, per_row)`."""
    return {
        "model": model,
        "included_requests": included,
        "tiers": [
            {"up_to_requests": up_to, "per_request": per_request, "per_row": per_row}
            for up_to, per_request, per_row in tiers
        ],
    }
