"""What a buyer reads about the models: the catalogue, and a card and an API for each model."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

from registry.records import Manifest
from services.common.errors import (
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.negotiation import choose_media_type
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import OptionalCaller, public
from services.inference.access import check_model, check_scope
from services.inference.catalogue.card import (
    CardRead,
    Catalogue,
    build_card,
    is_public,
    list_entry,
)
from services.inference.catalogue.documents import Documents, respond
from services.inference.catalogue.history import ReleaseHistory
from services.inference.catalogue.model_openapi import describe_model
from services.inference.catalogue.page import card_headers, render_card
from services.inference.catalogue.prices import PriceList, find_price
from services.inference.models.table import LiveRelease, ModelNotFound, ModelTable

JSON, HTML = "application/json", "text/html"


@dataclass(frozen=True, slots=True)
class CatalogueSources:
    """What the documents are made from, besides the models themselves."""

    prices: PriceList
    history: ReleaseHistory
    documents: Documents


router = new_router(tag="catalogue")
_OPTIONAL_TOKEN: dict[str, Any] = {"security": [{}]}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified."}}
_REFUSALS = error_responses(Unauthenticated, InsufficientScope, ModelNotFound, Unavailable)


@router.get("/v1/catalogue", responses=_NOT_MODIFIED, response_model=Catalogue)
@public
async def list_public_models(request: Request) -> Response:
    """List the public models. Needs no token."""
    table: ModelTable = request.app.state.models
    sources: CatalogueSources = request.app.state.catalogue
    document = await sources.documents.get(
        "catalogue", made_from=table.changes, make=partial(_encode_catalogue, _public(table))
    )
    return respond(request, document, media_type=JSON, is_public=True)


@router.get(
    "/v1/models/{model:name}/card",
    responses={
        **_REFUSALS,
        **_NOT_MODIFIED,
        200: {"content": {HTML: {"schema": {"type": "string"}}}},
    },
    response_model=CardRead,
    openapi_extra=_OPTIONAL_TOKEN,
)
@public
async def read_card(model: str, request: Request, caller: OptionalCaller) -> Response:
    """Describe the live version to buyers, as JSON or as a page, by `Accept`.

    A public model's card needs no token. The price is that of the default plan.
    """
    table: ModelTable = request.app.state.models
    sources: CatalogueSources = request.app.state.catalogue
    live = find_readable(table, model, caller)
    manifest = live.manifest
    price = find_price(await sources.prices.plans(), model)
    versions = await sources.history.versions(live)
    media_type = choose_media_type(",".join(request.headers.getlist("accept")), (JSON, HTML))

    def make() -> bytes:
        card = build_card(
            manifest, versions=versions, deprecations=table.deprecations(model), price=price
        )
        if media_type == HTML:
            return render_card(card).encode()
        return orjson.dumps(card.model_dump(mode="json"))

    document = await sources.documents.get(
        (model, media_type),
        made_from=(table.changes, versions, price.model_dump_json()),
        make=make,
    )
    headers = {"Vary": "Accept"} | (card_headers() if media_type == HTML else {})
    return respond(
        request, document, media_type=media_type, is_public=is_public(manifest), headers=headers
    )


@router.get(
    "/v1/models/{model:name}/openapi.json",
    responses={**_REFUSALS, **_NOT_MODIFIED},
    response_model=dict[str, Any],
    openapi_extra=_OPTIONAL_TOKEN,
)
@public
async def read_openapi(model: str, request: Request, caller: OptionalCaller) -> Response:
    """Return an OpenAPI document of one model: its columns, its classes and its operations.

    A public model's document needs no token.
    """
    table: ModelTable = request.app.state.models
    sources: CatalogueSources = request.app.state.catalogue
    manifest = find_readable(table, model, caller).manifest
    service = request.app.openapi()
    document = await sources.documents.get(
        (model, "openapi"),
        made_from=table.changes,
        make=lambda: orjson.dumps(describe_model(service, manifest)),
    )
    return respond(request, document, media_type=JSON, is_public=is_public(manifest))


def find_readable(table: ModelTable, model: str, caller: Caller | None) -> LiveRelease:
    """Return the live release of a model that the caller may read about.

    Without a token, a private model and one that does not exist get the same answer.

    Raises:
        Unauthenticated: there is no token, and the model is not public.
        InsufficientScope, ModelNotAllowed: likewise, with credentials that may not predict, or not
            with this model.
        ModelNotFound, Unavailable: there is no such model, or it is not known yet.
    """
    live = table.find_live(model)
    if live is not None and is_public(live.manifest):
        return live
    if caller is None:
        raise Unauthenticated(token_given=False)
    check_scope(caller)
    check_model(caller, model)
    return table.live(model)


def _public(table: ModelTable) -> list[Manifest]:
    manifests = (table.live(name).manifest for name in table.names())
    return [manifest for manifest in manifests if is_public(manifest)]


def _encode_catalogue(manifests: list[Manifest]) -> bytes:
    catalogue = Catalogue(models=[list_entry(manifest) for manifest in manifests])
    return orjson.dumps(catalogue.model_dump(mode="json"))
