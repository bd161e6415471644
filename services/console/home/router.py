"""The first page: the catalogue of the public models."""

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.console.apis import inference as inference_api
from services.console.apis.calls import load
from services.console.design.pages import show
from services.console.sessions.guards import MaybeSignedIn
from services.console.state import AppApis

router = new_router(tag="models")


@router.get("/")
@public
async def catalogue(request: Request, session: MaybeSignedIn, apis: AppApis) -> Response:
    """Show the public models."""
    models = await load(inference_api.list_catalogue(apis.inference))
    return show(request, "home/catalogue.html.j2", models=models)
