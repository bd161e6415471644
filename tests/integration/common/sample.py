"""A small service with everything that the services have in common."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from jose.backends.base import Key
from pydantic import BaseModel, ConfigDict

from services.common.errors import NotFound, ServiceError, Unavailable
from services.common.http.addresses import Addresses
from services.common.http.app import service_app
from services.common.http.methods import Cors
from services.common.http.routing import new_router
from services.common.identity.guards import AnyCaller
from services.common.identity.tokens import TokenVerifier

LIMIT = 1000
ADDRESSES = Addresses(issuer="http://auth.test", inference="http://inference.test")

router = new_router(tag="samples")


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    size: float


class Gone(ServiceError):
    """The sample does not exist any more."""

    status = 410
    code = "gone"


@router.post("/samples")
async def take(body: Sample) -> dict[str, str]:
    return {"name": body.name}


@router.post("/private")
async def take_from_known(body: Sample, caller: AnyCaller) -> dict[str, str]:
    return {"name": body.name}


@router.get("/things/{name}")
async def read(name: str) -> dict[str, str]:
    return {"name": name}


@router.put("/things/{name}")
async def write(name: str, body: Sample) -> dict[str, str]:
    return {"name": body.name}


@router.get("/broken/{how}")
async def break_down(how: str) -> None:
    failures: dict[str, Exception] = {
        "bug": ZeroDivisionError("SELECT secret FROM /etc/passwd"),
        "busy": Unavailable("Come back later.", retry_after_s=7),
        "gone": Gone("It has gone.", since="yesterday"),
        "unknown": NotFound(),
    }
    raise failures[how]


class NoKeys:
    async def find(self, kid: str) -> Key | None:
        return None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def database() -> str | None:
        return cast(str | None, app.state.ailment)

    app.state.ailment = None
    app.state.verifier = TokenVerifier(NoKeys(), issuer="http://auth.test")
    app.state.checks = {"database": database}
    yield


def sample_app() -> FastAPI:
    """Return the service, not started yet."""
    app = service_app(
        title="Sample",
        description="A service.",
        token_url="http://auth.test/token",
        addresses=ADDRESSES,
        lifespan=lifespan,
        max_body_bytes=LIMIT,
        cors=Cors(["http://page.test"], ["GET", "PUT"], ["Authorization"], ["X-Request-ID"]),
    )
    app.include_router(router)
    return app


def assert_problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:tollgate:problem:{code}"
    assert body["status"] == status
    assert body["instance"] == answer.request.url.path
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"title", "detail"} <= set(body)
