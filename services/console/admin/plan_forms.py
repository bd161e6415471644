"""The form of a plan, as billing takes it, and billing's errors as fields of the form."""

from collections.abc import Mapping
from typing import Any

ROWS = ("", "_2", "_3")
"""What the names of the fields of each price end in; the first is for all models."""
_TRIAL = ("trial_amount", "trial_days")
_TERMS = (
    *("name", "currency", "billing", "description", "monthly_fee", *_TRIAL),
    *("per_second", "burst"),
)
_PRICE = ("model", "included_requests", "per_request", "per_row")
_THEN = ("up_to_requests", "then_per_request", "then_per_row")
FIELDS = frozenset(_TERMS) | {f"{name}{row}" for row in ROWS for name in (*_PRICE, *_THEN)}
MAX_NAME_CHARS = 100


def read_plan(form: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the plan of a form, and what is wrong with the form by field."""
    errors: dict[str, str] = {}
    prices = [_price(form, row, errors) for row in _used_rows(form)]
    plan: dict[str, Any] = {
        "name": form.get("name", "").strip(),
        "currency": form.get("currency", "").strip().upper(),
        "billing": form.get("billing", ""),
        "prices": prices,
        "public": form.get("public") == "yes",
    }
    if not plan["name"]:
        errors["name"] = "Name the plan."
    if not plan["currency"]:
        errors["currency"] = "Enter a currency, such as USD."
    if plan["billing"] not in ("postpaid", "prepaid"):
        errors["billing"] = "Choose when the account pays."
    for name in ("description", "monthly_fee"):
        if text := form.get(name, "").strip():
            plan[name] = text.replace("\r\n", "\n")
    if plan["billing"] == "prepaid" and "monthly_fee" in plan:
        errors["monthly_fee"] = "Only a plan that is paid by invoice can have a monthly fee."
    if trial := _trial(form, errors):
        plan["trial_credit"] = trial
        if plan["billing"] == "postpaid":
            errors["trial_amount"] = "Only a plan that is paid in advance can have trial credit."
    per_second, burst = (_number(form, name, errors) for name in ("per_second", "burst"))
    if (per_second is None) != (burst is None):
        missing = "burst" if burst is None else "per_second"
        errors.setdefault(missing, "A rate limit needs both.")
    elif per_second is not None:
        plan["rate_limit"] = {"per_second": per_second, "burst": burst}
    return plan, errors


def field_of(location: str, form: Mapping[str, str]) -> str | None:
    """Return the field that a place in a plan came from; None if it is about no field.

    Args:
        location: such as `prices.0.tiers.1.per_row`.
    """
    parts = [part for part in location.split(".") if part not in ("rate_limit", "function-after")]
    if parts[:1] == ["trial_credit"]:
        return f"trial_{parts[-1]}" if parts[-1] in ("amount", "days") else _TRIAL[0]
    if parts[:1] != ["prices"]:
        return next((part for part in parts if part in FIELDS), None)
    rows = _used_rows(form)
    row = rows[int(parts[1])] if len(parts) > 1 and parts[1].isdecimal() else ""
    is_second = "tiers" in parts and "1" in parts[2:]
    name = f"{'then_' if is_second else ''}{parts[-1]}{row}"
    return name if name in FIELDS else None


def _trial(form: Mapping[str, str], errors: dict[str, str]) -> dict[str, Any] | None:
    """Return the trial credit of a form, if it has some."""
    amount, days = form.get("trial_amount", "").strip(), _number(form, "trial_days", errors)
    if not amount and not form.get("trial_days", "").strip():
        return None
    if not amount:
        errors["trial_amount"] = "Enter how much credit it is."
    elif days is None:
        errors.setdefault("trial_days", "Enter after how many days it expires.")
    return {"amount": amount, "days": days}


def _used_rows(form: Mapping[str, str]) -> list[str]:
    """Return the prices that are filled in; the first always is one."""
    filled = [row for row in ROWS[1:] if any(form.get(f"{name}{row}") for name in _PRICE)]
    return [ROWS[0], *filled]


def _price(form: Mapping[str, str], row: str, errors: dict[str, str]) -> dict[str, Any]:
    model = form.get(f"model{row}", "").strip() if row else ""
    if row and not model:
        errors[f"model{row}"] = "Name the model of this price."
    bound = _number(form, f"up_to_requests{row}", errors)
    first: dict[str, Any] = {"up_to_requests": bound} | _amounts(form, row, "", errors)
    tiers = [first]
    if bound is not None:
        tiers.append({"up_to_requests": None} | _amounts(form, row, "then_", errors))
    elif any(form.get(f"{name}{row}") for name in _THEN):
        errors.setdefault(f"up_to_requests{row}", "Enter after how many requests this applies.")
    return {
        "model": model or None,
        "included_requests": _number(form, f"included_requests{row}", errors) or 0,
        "tiers": tiers,
    }


def _amounts(
    form: Mapping[str, str], row: str, prefix: str, errors: dict[str, str]
) -> dict[str, str]:
    amounts = {}
    for name in ("per_request", "per_row"):
        field = f"{prefix}{name}{row}"
        amounts[name] = form.get(field, "").strip()
        if not amounts[name]:
            errors[field] = "Enter an amount; 0 for none."
    return amounts


def _number(form: Mapping[str, str], name: str, errors: dict[str, str]) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 16:
        return int(text)
    errors[name] = "Enter a whole number."
    return None
