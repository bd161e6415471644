"""Calls to billing: usage events out, lease terms and receipts in, and billing's clock."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import orjson
from pydantic import BaseModel, SecretStr, TypeAdapter

from services.common.contracts import (
    CLOUDEVENTS_BATCH,
    IngestResult,
    LeaseRequest,
    LeaseTerms,
    SourceReport,
)
from services.common.errors import PROBLEM_JSON
from services.common.identity.client_token import ClientToken, NoToken
from services.inference.metering.events import find_traceparent

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

PIECE_VALUES = 500
MAX_LOOKUPS = 4
"""How many receipts may be looked up at once for each purpose.

Neither callers without credit nor callers who give feedback can then crowd out usage events.
"""


class Charge(BaseModel):
    """The part of a receipt that says what an event was charged."""

    amount: str
    currency: str
    price_id: str


class Receipt(BaseModel):
    """The part of a receipt that says how an event was answered."""

    model: str
    version: str
    rows: int


_INGESTED = TypeAdapter(IngestResult)
_CHARGED = TypeAdapter(Charge)
_RECEIPT = TypeAdapter(Receipt)
_TERMS = TypeAdapter(list[LeaseTerms])
_CLOCK_TOLERANCE_S = 2.0


T = TypeVar("T")


class BillingError(Exception):
    """A call to billing, or to the issuer of its tokens, failed.

    Args:
        status: the HTTP status of billing's own response; None if there was no response, or if it
            came from a proxy in between, which cannot know what happened to the usage.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BillingClient:
    """Calls billing with this service's own OAuth client, and follows billing's clock.

    Args:
        http: owned by the lifespan, which closes it.
        auth_url: the issuer, for the client credentials grant (RFC 6749 §4.4).
        tracing: records a span in the trace of each traced event that is delivered.
        wall_clock: returns seconds since the epoch, as this machine sees them.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        billing_url: str,
        auth_url: str,
        client_id: str,
        client_secret: SecretStr,
        tracing: "Tracing | None" = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._billing_url = billing_url
        self._token = ClientToken(
            http, auth_url=auth_url, client_id=client_id, client_secret=client_secret, clock=clock
        )
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)
        self._receipts = asyncio.Semaphore(MAX_LOOKUPS)
        self._tracing = tracing
        self._wall_clock = wall_clock
        self._clock = clock
        self._epoch_s = wall_clock() - clock()

    def now(self) -> float:
        """Return seconds since the epoch on billing's clock, as its `Date` headers report it.

        Between responses it follows the monotonic clock. If this machine's time jumps, usage is
        then not dated in a future that billing rejects.
        """
        return self._clock() + self._epoch_s

    async def send_events(self, events: Sequence[bytes]) -> IngestResult:
        """Deliver usage events, each the bytes of a CloudEvent.

        Raises:
            BillingError: billing may not have taken them; deliver them again.
        """
        with self._follow_traces(events):
            answer = await self._call("POST", "/events", _Array(events), CLOUDEVENTS_BATCH)
            result = _parse(_INGESTED, answer)
            counted = result.accepted + result.duplicates + result.conflicts + len(result.rejected)
            if counted != len(events):
                raise BillingError(f"billing counted {counted} of {len(events)} events")
        return result

    async def request_leases(self, requests: Sequence[LeaseRequest]) -> list[LeaseTerms]:
        """Request leases; return the terms of each, in the order of the requests.

        Raises:
            BillingError: there are no terms right now.
        """
        body = orjson.dumps([request.model_dump(mode="json") for request in requests])
        leases = _parse(_TERMS, await self._call("POST", "/leases", body))
        if [terms.account for terms in leases] != [request.account for request in requests]:
            raise BillingError("billing answered for other accounts than were requested")
        return leases

    async def find_charge(self, event_id: str) -> Charge | None:
        """Return what an event was charged, or None if billing has not charged it.

        Raises:
            BillingError: billing does not answer.
        """
        try:
            async with self._lookups:
                return _parse(_CHARGED, await self._call("GET", f"/usage/events/{event_id}"))
        except BillingError as error:
            if error.status == 404:
                return None
            raise

    async def find_receipt(self, event_id: str, *, bearer: str) -> Receipt | None:
        """Return how an event was answered, or None if the token's account has no such receipt.

        Raises:
            BillingError: billing does not answer, or (403) the token may not read receipts.
        """
        try:
            async with self._receipts:
                found = await self._call("GET", f"/usage/events/{event_id}", bearer=bearer)
                return _parse(_RECEIPT, found)
        except BillingError as error:
            if error.status == 404:
                return None
            raise

    async def report(self, journal: str, report: SourceReport) -> None:
        """Report how far a journal has come.

        Raises:
            BillingError: the report may not have arrived.
        """
        body = report.model_dump_json().encode()
        await self._call("PUT", f"/sources/{journal}", body)

    def _follow_traces(self, events: Sequence[bytes]) -> AbstractContextManager[None]:
        """Return a span in the trace of each traced event, which may be of an earlier process."""
        if self._tracing is None:
            return nullcontext()
        traceparents = [found for found in map(find_traceparent, events) if found]
        return self._tracing.follow("ship", traceparents)

    async def _call(
        self,
        method: str,
        path: str,
        body: "bytes | _Array" = b"",
        media_type: str = "application/json",
        *,
        bearer: str | None = None,
    ) -> bytes:
        """Call billing as this service or, given a token, as its bearer; return the body."""
        headers = {
            "Authorization": f"Bearer {bearer or await self._bearer()}",
            "Content-Type": media_type,
            "Content-Length": str(len(body)),
        }
        response = await self._send(method, self._billing_url + path, content=body, headers=headers)
        if response.status_code == 401 and bearer is None:
            self._token.drop()  # revoked, or the issuer's keys changed
        if not response.is_success:
            own = response.headers.get("content-type") == PROBLEM_JSON
            raise BillingError(
                f"billing answered {response.status_code}",
                status=response.status_code if own else None,
            )
        self._follow_clock(response.headers.get("date"))
        return response.content

    async def _bearer(self) -> str:
        try:
            return await self._token.get()
        except NoToken as error:
            raise BillingError(str(error)) from error

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            return await asyncio.shield(self._http.request(method, url, **options))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BillingError(f"no response: {type(error).__name__}") from error

    def _follow_clock(self, date: str | None) -> None:
        """Correct the clock by a `Date` header.

        It has whole seconds, so only a clear difference means that this machine's clock is off.
        """
        try:
            theirs = parsedate_to_datetime(date or "").timestamp() + 0.5
        except ValueError:
            return  # missing or invalid
        ours = self._wall_clock()
        correct = ours if abs(theirs - ours) <= _CLOCK_TOLERANCE_S else theirs
        self._epoch_s = correct - self._clock()


class _Array:
    """The body of a JSON array, which httpx sends in pieces.

    Joining and sending a megabyte at once would stop the event loop for more than a millisecond.
    """

    def __init__(self, values: Sequence[bytes]) -> None:
        self._values = values

    def __len__(self) -> int:
        return sum(map(len, self._values)) + max(len(self._values), 1) + 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"["
        for start in range(0, len(self._values), PIECE_VALUES):
            piece = b",".join(self._values[start : start + PIECE_VALUES])
            yield b"," + piece if start else piece
        yield b"]"


def _parse(shape: TypeAdapter[T], answer: bytes) -> T:
    try:
        return shape.validate_json(answer)
    except ValueError as error:
        raise BillingError("the response is invalid") from error
