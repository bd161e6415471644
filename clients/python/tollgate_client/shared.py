"""What both clients have in common: everything but sending."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from tollgate_client import transport
from tollgate_client.calls import Calls
from tollgate_client.options import Options, read_options
from tollgate_client.steps import Call, Send

BASE_URL = "http://127.0.0.1:8002"
TIMEOUT_S = 60.0
MAX_RETRIES = 4
BATCH_ROWS = 10_000
CONNECT_S = 5.0
"""For one attempt; a host that is gone leaves time for another attempt."""


class Shared:
    """The settings of a client, and its calls."""

    def __init__(
        self, api_key: str, base_url: str, *, timeout: float, max_retries: int, batch_rows: int
    ) -> None:
        self._authorization = transport.authorization(api_key)
        self._timeout_s = timeout
        self._calls = Calls(
            transport.check_url(base_url), max_retries=max_retries, batch_rows=batch_rows
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._calls.base_url!r})"

    def _options(
        self, timeout: float | None, idempotency_key: str | None, tags: Mapping[str, str] | None
    ) -> Options:
        timeout_s = self._timeout_s if timeout is None else timeout
        return read_options(timeout=timeout_s, idempotency_key=idempotency_key, tags=tags)

    def _read(
        self, service: str, path: str, parameters: Mapping[str, Any], timeout: float | None
    ) -> Call[dict[str, Any]]:
        timeout_s = self._timeout_s if timeout is None else timeout
        return self._calls.read(service, path, parameters, timeout_s=timeout_s)

    def _request(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        headers = httpx.Headers(dict(send.headers))
        if send.authorized:
            headers.update(self._authorization)
        timeout = httpx.Timeout(send.timeout_s, connect=min(send.timeout_s, CONNECT_S))
        return http.build_request(
            send.method, send.url, content=send.body, headers=headers, timeout=timeout
        )
