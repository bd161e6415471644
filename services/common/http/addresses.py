"""The public URLs of the services: each publishes those of all."""

from fastapi import FastAPI, Response
from pydantic import BaseModel

from services.common.identity.guards import public
from services.common.settings import PublicUrls

PATH = "/.well-known/tollgate"
_CACHING = {"Cache-Control": "public, max-age=300"}


class Addresses(BaseModel):
    """The public URLs of the services, without a trailing slash; null if unknown."""

    issuer: str
    inference: str | None = None
    billing: str | None = None
    console: str | None = None


def public_addresses(settings: PublicUrls, *, issuer: str) -> Addresses:
    """Return the addresses that a service publishes."""
    return Addresses(
        issuer=issuer,
        inference=settings.inference_public_url,
        billing=settings.billing_public_url,
        console=settings.console_public_url,
    )


def add_addresses(app: FastAPI, addresses: Addresses) -> None:
    """Add `/.well-known/tollgate`."""

    @app.get(PATH, tags=["operations"])
    @public
    async def tollgate(response: Response) -> Addresses:
        """Return the public URLs of auth (the issuer), inference, billing and the console."""
        response.headers.update(_CACHING)
        return addresses
