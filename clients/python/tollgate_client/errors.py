"""What can go wrong with a call.

    TollgateError                any failure; the others are its subclasses
    ├── AuthenticationError      401, 403: the API key is invalid, or does not allow the call
    ├── PaymentRequiredError     402: no credit, plan or price, or a spend cap is reached
    ├── NotFoundError            404: no such model or version
    ├── InvalidInputError        400, 413, 415, 422: the rows or parameters are wrong; see `errors`
    ├── RateLimitError           429: over the account's rate limit; see `retry_after`
    └── UnavailableError         408, 500 to 504, or no answer within the deadline

A call that failed with one of these has not been paid for, with two exceptions: `partial` is what
a call in batches has paid for before the failure, and after an `UnavailableError` an answer may
have been lost on the way. Repeating the call with the error's `idempotency_key` and the same rows
gets those answers at no further cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollgate_client.answers import Receipt


@dataclass(frozen=True)
class Partial:
    """What a call in batches had already received, and paid for, when it failed.

    Attributes:
        rows: how many rows, from the first, have been answered.
        result: their result, as the call would have returned it.
        receipt: what they cost.
    """

    rows: int
    result: Any
    receipt: Receipt


class TollgateError(Exception):
    """A call failed.

    This class itself is raised for what none of its subclasses describes, such as an answer that
    does not come from Tollgate, or a model version that cannot be explained.

    Attributes:
        status: the HTTP status, or None if there was no answer.
        code: the kind of the problem, the end of its `type`, such as `rate_limited`; or None.
        request_id: names the request in the logs of the seller; or None.
        idempotency_key: the key of the call. Repeat the call with it to pay only for what has not
            been answered yet. None for calls that cost nothing.
        partial: what had been answered before the failure; None if nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.idempotency_key: str | None = None
        self.partial: Partial | None = None


class AuthenticationError(TollgateError):
    """The API key is invalid, or does not allow the call; nothing was charged.

    Cause: 401: the key is misspelled, revoked or expired. 403: the key lacks a scope, or is limited
    to other models (`code` is `model_not_allowed`) or addresses (`address_not_allowed`).

    Cure: use a key that allows the call. Retrying does not help.
    """


class PaymentRequiredError(TollgateError):
    """The account cannot pay for the call; nothing was charged.

    Cause: the account has no credit, no plan or no price for the model, or has reached a spend cap.

    Cure: add credit, choose a plan or raise the cap; this takes effect within seconds. Then repeat
    the call with the error's `idempotency_key`.
    """


class NotFoundError(TollgateError):
    """There is no such model, or no such version of it; nothing was charged.

    Cause: a misspelled name, or a version that failed its checks and was never offered.

    Cure: `models()` lists the names.
    """


class InvalidInputError(TollgateError):
    """The rows or the parameters are wrong; nothing was charged for them.

    Cause: a column is missing, unknown or of another type, or a parameter does not suit the model.

    Cure: `errors` says where. Correct the rows; retrying as they are does not help.

    Attributes:
        errors: `{"loc", "msg"}` of at most 50 fields. For a row, `loc` is `["instances", number,
            column]`, with the row's number in the whole call, from 0.
    """

    def __init__(
        self,
        message: str,
        *,
        errors: list[dict[str, Any]] | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, request_id=request_id)
        self.errors = errors or []


class RateLimitError(TollgateError):
    """The account is over its rate limit, and waiting would exceed the call's deadline or retries.

    Nothing was charged.

    Cause: more requests than the plan allows.

    Cure: send larger batches of rows, or wait `retry_after` seconds.

    Attributes:
        retry_after: seconds after which the next request may succeed; None if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, request_id=request_id)
        self.retry_after = retry_after


class UnavailableError(TollgateError):
    """The service did not answer in time, in spite of all retries.

    Cause: the service cannot be reached, is overloaded or is being restarted, or the deadline was
    too short.

    Cure: repeat the call later. If the answer was computed but lost, it has been charged; with the
    error's `idempotency_key`, the repeat is not charged again.
    """
