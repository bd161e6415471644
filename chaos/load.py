"""Callers that repeat every request with its idempotency key until it is answered."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from harness.accounts import Account
from harness.platform import Platform
from harness.samples import PREDICT, WINE

PAUSE_S = 0.05
PAUSE_UNPAID_S = 0.3
GIVE_UP_S = 120.0
"""A request without an answer for this long fails the run."""


class Unanswered(Exception):
    """A request was refused that should have been served, or got no answer at all."""


@dataclass(frozen=True, slots=True)
class Request:
    """A keyed request, the same at every repeat."""

    key: str
    rows: int


@dataclass
class Caller:
    """A caller with its own account, and the responses it got."""

    account: Account
    credit: int | None = None
    """Prepaid money in 10⁻⁹ of the unit; None for a postpaid account."""
    may_run_dry: bool = False
    answered: dict[str, str] = field(default_factory=dict)
    """Event ids by key."""
    rows: int = 0
    unpaid: list[Request] = field(default_factory=list)
    """Requests that were last answered 402."""


@dataclass
class Load:
    """All callers; once `stopping` is set, each finishes its current request."""

    platform: Platform
    callers: list[Caller]
    stopping: threading.Event = field(default_factory=threading.Event)
    responses: Counter[str] = field(default_factory=Counter)
    """Responses by status, and broken connections."""

    def call_until_stopped(self, caller: Caller) -> None:
        """Send the requests of one caller, each until it is answered.

        Raises:
            Unanswered: a request was refused or not answered.
        """
        number = 0
        with self.platform.client("inference") as http:
            while not self.stopping.is_set():
                request = Request(f"key {number}", rows=1 + number % 3)
                if not self.predict(http, caller, request):
                    caller.unpaid.append(request)
                    time.sleep(PAUSE_UNPAID_S)
                number += 1

    def predict(self, http: httpx.Client, caller: Caller, request: Request) -> bool:
        """Repeat a request until it is served; return False on 402 if the caller may run dry."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            response = self._send(http, caller, request)
            if response is None or response.status_code in (429, 503):
                time.sleep(PAUSE_S)
            elif response.status_code == 200:
                caller.answered[request.key] = response.headers["X-Usage-Event"]
                caller.rows += request.rows
                return True
            elif response.status_code == 402 and caller.may_run_dry:
                return False
            else:
                raise Unanswered(f"{response.status_code}: {response.text}")
        raise Unanswered(f"{request.key}: no response within {GIVE_UP_S:g} s")

    def _send(self, http: httpx.Client, caller: Caller, request: Request) -> httpx.Response | None:
        try:
            response = http.post(
                PREDICT,
                json={"instances": [WINE] * request.rows},
                headers={
                    "Authorization": f"Bearer {caller.account.token}",
                    "Idempotency-Key": request.key,
                },
            )
        except httpx.TransportError:
            self.responses["broken"] += 1
            return None
        self.responses[str(response.status_code)] += 1
        return response
