"""Auth and billing as inference sees them: a real HTTP server with faults that a test chooses."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from jose import jwt

from harness.asgi_servers import serving_app
from harness.issuer import Issuer
from services.common.contracts import RejectionReport, format_amount, parse_amount
from services.common.errors import PROBLEM_JSON
from services.common.identity.api_keys import Mode, new_api_key
from tests.integration.inference.wallets import Wallets

SERVICE_TOKEN = "t"
PLAN = {
    "id": "plan-1",
    "name": "Pay as you go",
    "currency": "USD",
    "billing": "postpaid",
    "prices": [
        {
            "id": "price-1",
            "model": None,
            "included_requests": 1000,
            "tiers": [{"up_to_requests": None, "per_request": "0.0005", "per_row": "0.0001"}],
        }
    ],
    "rate_limit": None,
    "public": True,
    "default": True,
}
"""The default plan, as billing lists it."""


@cache
def issuer() -> Issuer:
    """Return the issuer of all tokens; one per process, because creating its key is slow."""
    return Issuer()


@dataclass
class Neighbours:
    """What the neighbours received, and how they should behave."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Every event delivered, repeats included."""
    batches: list[int] = field(default_factory=list)
    """Sizes of the delivered batches."""
    charged: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Events by id, the first of each."""
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    lease_requests: list[dict[str, Any]] = field(default_factory=list)
    status: str = "ok"
    """The status of leases."""
    tokens: int = 0
    """The number of tokens granted."""
    failing: dict[str, int] = field(default_factory=dict)
    """Paths that fail, with the HTTP status to return."""
    reject: set[str] = field(default_factory=set)
    """Ids of events to reject."""
    losing: set[str] = field(default_factory=set)
    """Paths whose requests are processed but whose responses are lost."""
    wallets: Wallets = field(default_factory=Wallets)
    """Accounts with a wallet are prepaid, all others postpaid."""
    rate_limit: dict[str, float] | None = None
    retry_after: int = 1
    """When credit that other processes have reserved is expected back."""
    max_batch: int = 10_000
    price: dict[str, str] = field(
        default_factory=lambda: {"per_request": "0.0005", "per_row": "0.0001"}
    )
    price_id: str = "price-1"
    """The price of the plan in force."""
    plans: list[dict[str, Any]] = field(default_factory=lambda: [dict(PLAN)])
    """The public plans."""
    plan_reads: int = 0
    own_prices: dict[str, dict[str, str]] = field(default_factory=dict)
    """Prices by model, of those with their own; their ids are the names."""
    api_keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The introspection response for each active API key."""
    introspected: list[str] = field(default_factory=list)
    """Every key that was introspected, repeats included."""
    revocations: list[dict[str, Any]] = field(default_factory=list)
    """As auth lists them; tests add some and remove none."""
    rejected: list[RejectionReport] = field(default_factory=list)
    """The reports of rejected credentials."""
    answered_by_a_proxy: bool = False
    """Whether failures come from a proxy in front of billing."""

    def __post_init__(self) -> None:
        self.jwks = {"keys": [issuer().jwk()]}

    def _amount(self, event: dict[str, Any]) -> int:
        rows: int = event["data"]["rows"]
        price = self.own_prices.get(event["data"]["price_id"], self.price)
        return parse_amount(price["per_request"]) + rows * parse_amount(price["per_row"])

    def reset(self) -> None:
        """Restore the initial state."""
        fresh = Neighbours(url=self.url)
        for name in fresh.__dict__.keys() - {"url", "jwks", "revocations"}:
            setattr(self, name, getattr(fresh, name))

    def charged_to(self, account: str) -> list[str]:
        """Return the ids of the events an account was charged for."""
        return [id for id, event in self.charged.items() if event["subject"] == account]

    def token(self, *, account: str | None = None, scope: str = "predict usage:read") -> str:
        """Return a valid access token."""
        return issuer().token(iss=self.url, sub=account or str(uuid.uuid4()), scope=scope)

    def new_key(self, *, account: str, mode: Mode = "live", **claims: Any) -> str:
        """Return a new active API key of an account."""
        key = new_api_key(mode)
        self.api_keys[key] = {
            "active": True,
            "token_type": "api_key",
            "sub": account,
            "client_id": str(uuid.uuid4()),
            "scope": "predict usage:read",
            "iat": 0,
            "mode": mode,
            **claims,
        }
        return key

    def revoke(self, kind: str, id: str) -> None:
        """Publish a revocation of what was issued until now."""
        now = int(time.time())
        times = {"issued_before": _instant(now + 1), "until": _instant(now + 3600)}
        self.revocations.append({"kind": kind, "id": id, **times})

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def fail_on_demand(request: Request, call_next: Any) -> Response:
            if status := self.failing.get(request.url.path):
                by = "text/html" if self.answered_by_a_proxy else PROBLEM_JSON
                return Response(status_code=status, media_type=by)
            response: Response = await call_next(request)
            return Response(status_code=500) if request.url.path in self.losing else response

        @app.get("/.well-known/jwks.json")
        async def keys() -> dict[str, Any]:
            return self.jwks

        @app.post("/token")
        async def token() -> dict[str, Any]:
            self.tokens += 1
            return {
                "access_token": SERVICE_TOKEN,
                "token_type": "bearer",
                "expires_in": 3600,
                "scope": "billing:write",
            }

        @app.post("/introspect")
        async def introspect(request: Request) -> dict[str, Any]:
            form = dict(parse_qsl((await request.body()).decode()))
            self.introspected.append(form["token"])
            return self.api_keys.get(form["token"], {"active": False})

        @app.get("/revocations")
        async def revocations(after: int) -> dict[str, Any]:
            for _ in range(10):
                if len(self.revocations) != after:
                    break
                await asyncio.sleep(0.02)
            if status := self.failing.get("/revocations"):
                raise HTTPException(status)
            begin = after if after <= len(self.revocations) else 0
            return {"last": len(self.revocations), "revocations": self.revocations[begin:]}

        @app.post("/rejections", status_code=204)
        async def rejections(request: Request) -> None:
            self.rejected.append(RejectionReport.model_validate_json(await request.body()))

        @app.get("/plans")
        async def plans() -> dict[str, Any]:
            self.plan_reads += 1
            return {"plans": self.plans}

        @app.post("/leases")
        async def leases(request: Request) -> list[dict[str, Any]]:
            requests = orjson.loads(await request.body())
            self.lease_requests += requests
            return [self._terms(each) for each in requests]

        @app.get("/usage/events/{event_id}")
        async def receipt(event_id: str, request: Request) -> Response:
            event = self.charged.get(event_id)
            status = 404 if event is None else _may_read(event, request.headers["authorization"])
            if event is None or status != 200:
                return Response(status_code=status, media_type=PROBLEM_JSON)
            found = {
                "amount": format_amount(self._amount(event)),
                "currency": "USD",
                "price_id": "price-1",
                **{name: event["data"][name] for name in ("model", "version", "rows")},
            }
            return Response(orjson.dumps(found), media_type="application/json")

        @app.post("/events")
        async def events(request: Request) -> Response:
            batch = orjson.loads(await request.body())
            if len(batch) > self.max_batch:
                return Response(status_code=413, media_type=PROBLEM_JSON)
            self.batches.append(len(batch))
            duplicates, rejected = 0, []
            for index, event in enumerate(batch):
                self.events.append(event)
                if event["subject"] in self.wallets.available:
                    self.wallets.settle(
                        event["subject"],
                        event["journal"],
                        event["sequence"],
                        self._amount(event),
                        charged_before=event["id"] in self.charged or event["id"] in self.reject,
                    )
                if event["id"] in self.reject:
                    rejected.append({"index": index, "id": event["id"], "reason": "unwanted"})
                elif event["id"] in self.charged:
                    duplicates += 1
                else:
                    self.charged[event["id"]] = event
            result = {
                "accepted": len(batch) - duplicates - len(rejected),
                "duplicates": duplicates,
                "conflicts": 0,
                "rejected": rejected,
            }
            return Response(orjson.dumps(result), 202, media_type="application/json")

        @app.put("/sources/{journal}")
        async def sources(journal: str, request: Request) -> dict[str, str]:
            self.sources[journal] = orjson.loads(await request.body())
            if self.sources[journal]["closed"]:
                self.wallets.close(journal)
            return {}

        return app

    def _terms(self, request: dict[str, Any]) -> dict[str, Any]:
        billing, status, granted = "postpaid", self.status, "0"
        if request["account"] in self.wallets.available:
            billing = "prepaid"
            status, granted = self.wallets.lease(request)
        return {
            "account": request["account"],
            "status": status,
            "currency": "USD",
            "billing": billing,
            "granted": granted,
            "prices": [
                {"model": None, "price_id": self.price_id, **self.price},
                *({"model": m, "price_id": m, **price} for m, price in self.own_prices.items()),
            ],
            "rate_limit": self.rate_limit,
        } | ({"retry_after": self.retry_after} if status == "reserved_elsewhere" else {})


def _may_read(event: dict[str, Any], authorization: str) -> int:
    """Return the status for reading a receipt: services may read all, callers their own."""
    token = authorization.removeprefix("Bearer ")
    if token == SERVICE_TOKEN:
        return 200
    claims = jwt.get_unverified_claims(token)
    if "usage:read" not in claims["scope"].split():
        return 403
    return 200 if claims["sub"] == event["subject"] else 404


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@asynccontextmanager
async def running(neighbours: Neighbours) -> AsyncIterator[Neighbours]:
    """Serve the neighbours on a free port of the loopback address."""
    async with serving_app(neighbours.app()) as url:
        neighbours.url = url
        yield neighbours
