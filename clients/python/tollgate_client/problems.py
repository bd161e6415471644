"""From an answer that is an error to the exception that it means."""

from __future__ import annotations

import json
import re
from typing import Any

from tollgate_client.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    PaymentRequiredError,
    RateLimitError,
    TollgateError,
    UnavailableError,
)
from tollgate_client.retrying import retry_after
from tollgate_client.steps import Answer, Failure

_TYPES: dict[int, type[TollgateError]] = {
    400: InvalidInputError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: AuthenticationError,
    404: NotFoundError,
    408: UnavailableError,
    413: InvalidInputError,
    415: InvalidInputError,
    422: InvalidInputError,
    429: RateLimitError,
    500: UnavailableError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
_SHOWN = 5
_ROW_LIMIT = re.compile(r"(?:the maximum is|Must have 1 to) ([0-9]{1,9})\b")


def error_of(answer: Answer, *, first_row: int = 0) -> TollgateError:
    """Return the exception that an answer other than 200 means.

    Args:
        first_row: the number of the request's first row in the whole call.
    """
    problem = read_problem(answer)
    kind = str(problem.get("type", ""))
    details: dict[str, Any] = {
        "status": answer.status,
        "code": kind.rpartition(":")[2] or None,
        "request_id": answer.headers.get("x-request-id"),
    }
    text = str(problem.get("detail") or problem.get("error") or f"HTTP status {answer.status}.")
    type_ = _TYPES.get(answer.status, TollgateError)
    if type_ is InvalidInputError:
        errors = [_in_the_call(each, first_row) for each in _entries(problem)]
        return InvalidInputError(with_errors(text, errors), errors=errors, **details)
    if type_ is RateLimitError:
        return RateLimitError(text, retry_after=retry_after(answer.headers), **details)
    return type_(text, **details)


def no_answer(failure: Failure, *, timeout_s: float) -> UnavailableError:
    """Return the exception for a request that got no answer from the service."""
    return UnavailableError(f"No answer within {timeout_s:g} s or the retries: {failure.reason}.")


def with_errors(text: str, errors: list[dict[str, Any]]) -> str:
    """Return a message that names the first few fields with errors."""
    shown = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors[:_SHOWN]]
    if len(errors) > _SHOWN:
        shown.append(f"and {len(errors) - _SHOWN} more.")
    return " ".join([text, *shown])


def smaller_batch(answer: Answer, *, rows: int) -> int | None:
    """Return how many rows to send at once, if an answer refuses a request for its size.

    Args:
        rows: how many it had.

    Returns:
        Fewer rows than that; None if the answer does not concern the size, or one row is too large.
    """
    if rows < 2:
        return None
    if answer.status == 413:
        return rows // 2
    if answer.status not in (400, 422):
        return None
    problem = read_problem(answer)
    texts = [str(problem.get("error", "")), *(str(each["msg"]) for each in _entries(problem))]
    for text in texts:
        found = _ROW_LIMIT.search(text)
        if found:
            return min(max(int(found[1]), 1), rows - 1)
    return None


def read_problem(answer: Answer) -> dict[str, Any]:
    """Return an error's document; empty if it is not JSON, as from a proxy in between."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _entries(problem: dict[str, Any]) -> list[dict[str, Any]]:
    entries = problem.get("errors")
    return [
        {"loc": list(each.get("loc", ())), "msg": str(each.get("msg", ""))}
        for each in (entries if isinstance(entries, list) else [])
        if isinstance(each, dict)
    ]


def _in_the_call(entry: dict[str, Any], first_row: int) -> dict[str, Any]:
    """Count a row from the first one of the call, instead of the first one of the batch."""
    loc = entry["loc"]
    if len(loc) > 1 and loc[0] == "instances" and type(loc[1]) is int:
        loc = ["instances", loc[1] + first_row, *loc[2:]]
    return {**entry, "loc": loc}
