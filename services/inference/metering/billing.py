"""Billing as this service sees it: usage out, terms in, and the time."""

import asyncio
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import orjson
from pydantic import BaseModel, SecretStr, TypeAdapter

from services.common.contracts import (
    CLOUDEVENTS_BATCH,
    IngestResult,
    LeaseAsk,
    LeaseTerms,
    SourceReport,
    TokenGrant,
)
from services.common.errors import PROBLEM_JSON

MAX_LOOKUPS = 4
"""Receipts being looked up at once for each purpose, so that neither callers without credit nor
those who give feedback can crowd out usage."""


class Charge(BaseModel):
    """What billing's receipt says of an event that was charged."""

    amount: str
    currency: str
    price_id: str


class Receipt(BaseModel):
    """What billing's receipt says of how an event was answered."""

    model: str
    version: str
    rows: int


_INGESTED = TypeAdapter(IngestResult)
_CHARGED = TypeAdapter(Charge)
_RECEIPT = TypeAdapter(Receipt)
_TERMS = TypeAdapter(list[LeaseTerms])
_GRANTED = TypeAdapter(TokenGrant)
_RENEW_BEFORE_S = 60
_CLOCK_TOLERANCE_S = 2.0


T = TypeVar("T")


class BillingError(Exception):
    """Billing, or the issuer that lets us speak to it, did not do what was asked.

    Args:
        status: the HTTP status of billing's own answer; None if there was none, or it came from
            something in between, whose word on usage is worth nothing.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BillingClient:
    """Speaks to billing as this service's own OAuth client, and keeps its clock.

    Args:
        http: shared with the lifespan, which closes it.
        auth_url: the issuer, for tokens by client credentials (RFC 6749 §4.4).
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        billing_url: str,
        auth_url: str,
        client_id: str,
        client_secret: SecretStr,
    ) -> None:
        self._http = http
        self._billing_url = billing_url
        self._token_url = f"{auth_url}/token"
        self._client = (client_id, client_secret.get_secret_value())
        self._token = ""
        self._token_until = 0.0
        self._renewing = asyncio.Lock()
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)
        self._receipts = asyncio.Semaphore(MAX_LOOKUPS)
        self._epoch_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch by billing's clock, as far as its `Date` headers told.

        It runs on from there by the monotonic clock: should this machine's time jump, usage is not
        dated into a future that billing rejects.
        """
        return time.monotonic() + self._epoch_s

    async def send_events(self, events: Sequence[bytes]) -> IngestResult:
        """Deliver usage events, each the bytes of a CloudEvent.

        Raises:
            BillingError: nothing is known to have been taken; deliver again.
        """
        body = b"[" + b",".join(events) + b"]"
        answer = await self._call("POST", "/events", body, CLOUDEVENTS_BATCH)
        result = _parse(_INGESTED, answer)
        told = result.accepted + result.duplicates + result.conflicts + len(result.rejected)
        if told != len(events):
            raise BillingError("billing answered for another number of events than were sent")
        return result

    async def ask(self, asks: Sequence[LeaseAsk]) -> list[LeaseTerms]:
        """Ask for terms, one answer for each ask in the same order.

        Raises:
            BillingError: no terms are to be had now.
        """
        body = orjson.dumps([ask.model_dump(mode="json") for ask in asks])
        answer = _parse(_TERMS, await self._call("POST", "/leases", body))
        if [terms.account for terms in answer] != [ask.account for ask in asks]:
            raise BillingError("billing answered other accounts than were asked for")
        return answer

    async def find_charge(self, event_id: str) -> Charge | None:
        """What an event was charged; None if billing has not charged it.

        Raises:
            BillingError: it cannot be told now.
        """
        try:
            async with self._lookups:
                return _parse(_CHARGED, await self._call("GET", f"/usage/events/{event_id}"))
        except BillingError as error:
            if error.status == 404:
                return None
            raise

    async def find_receipt(self, event_id: str, *, bearer: str) -> Receipt | None:
        """How an event was answered; None if the bearer of that token has no such receipt.

        Raises:
            BillingError: it cannot be told now, or (403) the token may not read receipts.
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
        """Tell how far a journal has come.

        Raises:
            BillingError: it was not heard.
        """
        body = report.model_dump_json().encode()
        await self._call("PUT", f"/sources/{journal}", body)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        media_type: str = "application/json",
        *,
        bearer: str | None = None,
    ) -> bytes:
        """Billing's answer to this service or, with a token of theirs, to another caller."""
        headers = {
            "Authorization": f"Bearer {bearer or await self._bearer()}",
            "Content-Type": media_type,
        }
        response = await self._send(method, self._billing_url + path, content=body, headers=headers)
        if response.status_code == 401 and bearer is None:
            self._token_until = 0.0  # withdrawn early, or the issuer's keys changed
        if not response.is_success:
            own = response.headers.get("content-type") == PROBLEM_JSON
            raise BillingError(
                f"billing answered {response.status_code}",
                status=response.status_code if own else None,
            )
        self._follow_clock(response.headers.get("date"))
        return response.content

    async def _bearer(self) -> str:
        async with self._renewing:
            if time.monotonic() >= self._token_until:
                form = {"grant_type": "client_credentials", "scope": "billing:write"}
                response = await self._send("POST", self._token_url, data=form, auth=self._client)
                if not response.is_success:
                    raise BillingError(f"the issuer answered {response.status_code}")
                granted = _parse(_GRANTED, response.content)
                self._token = granted.access_token
                self._token_until = time.monotonic() + granted.expires_in - _RENEW_BEFORE_S
            return self._token

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            return await asyncio.shield(self._http.request(method, url, **options))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BillingError(f"no answer: {type(error).__name__}") from error

    def _follow_clock(self, date: str | None) -> None:
        """`Date` has whole seconds, so only a clear difference says that our clock is off."""
        try:
            told = parsedate_to_datetime(date or "").timestamp() + 0.5
        except ValueError:
            return  # no `Date`, or none that can be read
        ours = time.time()
        right = ours if abs(told - ours) <= _CLOCK_TOLERANCE_S else told
        self._epoch_s = right - time.monotonic()


def _parse(shape: TypeAdapter[T], answer: bytes) -> T:
    try:
        return shape.validate_json(answer)
    except ValueError as error:
        raise BillingError("the answer cannot be read") from error
