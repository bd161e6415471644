"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, overload

import httpx

from tollgate_client.answers import Explanations, Prediction
from tollgate_client.given import Frame, FrameT, Row
from tollgate_client.shared import BASE_URL, BATCH_ROWS, MAX_RETRIES, TIMEOUT_S, Shared
from tollgate_client.steps import Answer, Call, Failure, Outcome, Pause, Result, Send
from tollgate_client.transport import HEADERS, answer_of, failure_of, too_late


class AsyncTollgate(Shared):
    """`Tollgate` for asyncio. Tasks may share it; close it, or use it in an `async with` block.

    Args:
        api_key: of the account that pays.
        base_url: the address of any of the services; the others are discovered.
        timeout: seconds that a call may take in total, with all its retries and batches.
        max_retries: how often a request is repeated after failures that may pass.
        batch_rows: the most rows in one request; every request has a price of its own.
        transport: of httpx, for a proxy or a certificate authority of your own.

    Raises:
        ValueError: the API key or the address cannot be one.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        timeout: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        batch_rows: int = BATCH_ROWS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            api_key, base_url, timeout=timeout, max_retries=max_retries, batch_rows=batch_rows
        )
        self._http = httpx.AsyncClient(transport=transport, headers=HEADERS)

    async def __aenter__(self) -> AsyncTollgate:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @overload
    async def predict(
        self,
        model: str,
        rows: FrameT,
        *,
        probabilities: bool = ...,
        intervals: float | None = ...,
        version: str | None = ...,
        timeout: float | None = ...,
        idempotency_key: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> FrameT: ...

    @overload
    async def predict(
        self,
        model: str,
        rows: Sequence[Row],
        *,
        probabilities: bool = ...,
        intervals: float | None = ...,
        version: str | None = ...,
        timeout: float | None = ...,
        idempotency_key: str | None = ...,
        tags: Mapping[str, str] | None = ...,
    ) -> Prediction: ...

    async def predict(
        self,
        model: str,
        rows: Sequence[Row] | Frame,
        *,
        probabilities: bool = False,
        intervals: float | None = None,
        version: str | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Predict rows; a large call is sent in batches.

        Args:
            rows: dicts of named columns, lists in the order of the model's columns, or a DataFrame.
                None and NaN are missing values.
            probabilities: whether to add a classifier's probabilities.
            intervals: the probability, such as 0.9, with which added intervals (regression) or
                label sets (classification) contain the truth.
            version: a version to ask instead of the live one; without intervals.
            timeout: seconds for this call in total; default: the client's.
            idempotency_key: of an earlier call with the same rows, to repeat it without paying
                again; default: a new one.
            tags: names and values by which usage can be grouped.

        Returns:
            A Prediction; for a DataFrame, a DataFrame with the same index, the columns
            `prediction`, `probability_<class>`, `low` and `high` (or `label_set`), and
            `attrs["receipt"]`.

        Raises:
            TollgateError: its subclasses say why; `partial` is what was paid for before.
        """
        options = self._options(timeout, idempotency_key, tags)
        call = self._calls.predict(
            model,
            rows,
            probabilities=probabilities,
            intervals=intervals,
            version=version,
            options=options,
        )
        return await self._run(call)

    async def explain(
        self,
        model: str,
        rows: Sequence[Row] | Frame,
        *,
        top: int | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Explanations:
        """Predict rows and explain what each column contributed.

        Args:
            rows, timeout, idempotency_key, tags: as for `predict`.
            top: how many columns to name for each row; the others are summed.

        Raises:
            TollgateError: as for `predict`; `status` is 501 if the version cannot be explained.
        """
        options = self._options(timeout, idempotency_key, tags)
        return await self._run(self._calls.explain(model, rows, top=top, options=options))

    async def models(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the document of `GET /v1/models`: the names of the models.

        Raises:
            TollgateError: its subclasses say why.
        """
        return await self._run(self._read("inference", "/v1/models", {}, timeout))

    async def usage(self, *, timeout: float | None = None, **parameters: Any) -> dict[str, Any]:
        """Return the document of billing's `GET /usage`: what the account used.

        Args:
            parameters: `from_` and `to` (datetimes with a zone, or RFC 3339) and `group_by`.

        Raises:
            TollgateError: its subclasses say why.
        """
        return await self._run(self._read("billing", "/usage", parameters, timeout))

    async def balance(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the document of billing's `GET /balance`: what credit the account has.

        Raises:
            TollgateError: its subclasses say why.
        """
        return await self._run(self._read("billing", "/balance", {}, timeout))

    async def _run(self, call: Call[Result]) -> Result:
        outcome: Outcome = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as end:
                result: Result = end.value
                return result
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, send: Send) -> Answer | Failure:
        try:
            return await asyncio.wait_for(self._exchange(send), send.timeout_s)
        except asyncio.TimeoutError:
            return too_late(send)
        except httpx.RequestError as error:
            return failure_of(error, send)

    async def _exchange(self, send: Send) -> Answer:
        response = await self._http.send(self._request(self._http, send))
        return answer_of(response, response.content)
