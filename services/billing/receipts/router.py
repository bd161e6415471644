"""`/.well-known/jwks.json`: the keys that verify receipts."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from services.billing.receipts.keys import ReceiptKeys
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(prefix="/.well-known", tag="receipts")


async def _receipt_keys(request: Request) -> ReceiptKeys:
    keys: ReceiptKeys = request.app.state.receipt_keys
    return keys


AppReceiptKeys = Annotated[ReceiptKeys, Depends(_receipt_keys)]


@router.get("/jwks.json")
@public
async def read_receipt_keys(keys: AppReceiptKeys, response: Response) -> dict[str, Any]:
    """Return the keys that verify signed receipts (RFC 7517). Tokens have other keys: auth's."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return keys.document
