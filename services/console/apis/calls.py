"""Calls to the three APIs with a visitor's token, and what may go wrong with them."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
import orjson
import structlog

log = structlog.get_logger()

Value = TypeVar("Value")


class ApiUnavailable(Exception):
    """An API does not answer, or answers that it cannot at present.

    Args:
        name: of the API: `auth`, `inference` or `billing`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is unavailable")
        self.name = name


class TokenRejected(Exception):
    """An API no longer accepts the visitor's token: the session has ended."""


class ApiProblem(Exception):
    """An API refuses a request; `detail` is a sentence for the visitor.

    Args:
        errors: what is wrong, by the name of the field.
        retry_after_s: when to try again, if the API says so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = dict(errors or {})
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Api:
    """One of the three APIs; the lifespan owns the client."""

    http: httpx.AsyncClient
    name: str
    url: str

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        **request: Any,
    ) -> httpx.Response:
        """Return the response to a request that succeeded.

        Args:
            token: of the visitor; None for what everyone may read.
            request: as for httpx, such as `json` or `params`.

        Raises:
            ApiUnavailable: the API does not answer, or cannot at present (5xx).
            TokenRejected: the token is no longer valid.
            ApiProblem: any other refusal.
        """
        headers = dict(request.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = await asyncio.shield(
                self.http.request(method, f"{self.url}{path}", headers=headers, **request)
            )
        except httpx.HTTPError as error:
            log.warning("api_call_failed", api=self.name, reason=type(error).__name__)
            raise ApiUnavailable(self.name) from error
        if response.status_code >= 500:
            log.warning("api_call_failed", api=self.name, reason=f"status {response.status_code}")
            raise ApiUnavailable(self.name)
        if response.status_code == 401 and token is not None:
            raise TokenRejected()
        if not response.is_success:
            raise _problem(response)
        return response

    async def get(self, path: str, *, token: str | None = None, **request: Any) -> Any:
        """Return the JSON document at a path; raises as `call`."""
        return read_json(await self.call("GET", path, token=token, **request), api=self.name)

    async def get_newer(self, path: str, *, token: str | None = None, **request: Any) -> Any:
        """Return the JSON document at a path that an API of an earlier release does not have.

        Raises:
            ApiUnavailable: also if there is no such path.
            TokenRejected, ApiProblem: as `call`.
        """
        try:
            return await self.get(path, token=token, **request)
        except ApiProblem as problem:
            if problem.status == 404:
                raise ApiUnavailable(self.name) from problem
            raise

    async def is_up(self) -> bool:
        """Return whether the API answers at all."""
        try:
            await self.call("GET", "/healthz", timeout=2.0)
        except (ApiUnavailable, ApiProblem):
            return False
        return True


def read_json(response: httpx.Response, *, api: str) -> Any:
    """Return the JSON in a response.

    Raises:
        ApiUnavailable: it is not JSON, for example because a proxy answers.
    """
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise ApiUnavailable(api) from error


def _problem(response: httpx.Response) -> ApiProblem:
    """Return what a response says is wrong: problem+json, or an OAuth error (RFC 6749 §5.2)."""
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        document = {}
    code = str(document.get("type", document.get("error", ""))).rpartition(":")[2]
    detail = document.get("detail", document.get("error_description"))
    errors = {
        ".".join(str(part) for part in each["loc"] if part not in ("body", "query")): each["msg"]
        for each in document.get("errors", ())
        if isinstance(each, dict) and {"loc", "msg"} <= each.keys()
    }
    retry_after = response.headers.get("retry-after", "")
    return ApiProblem(
        response.status_code,
        code,
        str(detail or f"The request was refused ({response.status_code})."),
        errors=errors,
        retry_after_s=int(retry_after) if retry_after.isdigit() else None,
    )


@dataclass(frozen=True)
class Part(Generic[Value]):
    """A part of a page that comes from an API: its value, or why it is missing."""

    value: Value | None = None
    problem: str | None = None


async def load(value: Awaitable[Value]) -> "Part[Value]":
    """Return a part of a page; if its API is down or refuses, the rest still shows.

    Raises:
        TokenRejected: the visitor must sign in again.
    """
    try:
        return Part(await value)
    except ApiUnavailable as error:
        return Part(
            problem=f"{error.name.capitalize()} is unavailable at the moment. Try again soon."
        )
    except ApiProblem as error:
        return Part(problem=error.detail)
