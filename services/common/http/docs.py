"""A service's docs page, which works offline, and its OpenAPI document."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from services.common.errors import PROBLEM_JSON, BodyInvalid, ServiceError, error_responses
from services.common.http.pages import page_headers
from services.common.http.routing import list_guards
from services.common.identity.api_keys import KEY_SCOPES
from services.common.identity.guards import public

AmendOpenApi = Callable[[dict[str, Any]], None]
"""Changes an OpenAPI document in place."""

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_docs(
    app: FastAPI,
    *,
    token_url: str,
    accepts_api_keys: bool = False,
    amend: AmendOpenApi | None = None,
) -> None:
    """Add `/docs` and `/openapi.json`.

    Args:
        token_url: where the page's Authorize button signs in.
        accepts_api_keys: whether the service accepts API keys.
        amend: changes the OpenAPI document.
    """
    assets = Path(str(files("fastapi_offline"))) / "static"
    app.mount("/docs/assets", StaticFiles(directory=assets), name="docs-assets")
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.png",
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
    )
    content = bytes(page.body)
    headers = _page_headers(content.decode(), token_url=token_url)

    @app.get("/docs", include_in_schema=False)
    @public
    async def docs() -> HTMLResponse:
        return HTMLResponse(content, headers=headers)

    @cache
    def openapi() -> dict[str, Any]:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for scheme in schema.get("components", {}).get("securitySchemes", {}).values():
            scheme["flows"]["password"]["tokenUrl"] = token_url
        if accepts_api_keys:
            _document_api_keys(schema, app.routes)
        _document_errors(schema)
        if amend is not None:
            amend(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document_api_keys(schema: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add the API key as an alternative wherever its scopes may suffice."""
    schema["components"]["securitySchemes"]["api_key"] = {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key. It also works as `Authorization: Bearer <key>`.",
    }
    for route in iter_route_contexts(routes):
        guards = list_guards(route.dependant) if isinstance(route.original_route, APIRoute) else []
        if guards and all(guard.scope in (None, *KEY_SCOPES) for guard in guards):
            for method in route.methods or ():
                operation = schema["paths"].get(route.path_format, {}).get(method.lower(), {})
                operation.get("security", []).append({"api_key": []})


def operations(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the path and operation of every endpoint in an OpenAPI document."""
    return [
        (path, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    ]


def _page_headers(page: str, *, token_url: str) -> dict[str, str]:
    """Return headers that allow the page to work but not to be framed or extended.

    Swagger UI needs inline styles and images from `data:` URLs.
    """
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in _INLINE_SCRIPT.findall(page)
    ]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    auth = urlsplit(token_url)
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {scripts}",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": f"'self' {auth.scheme}://{auth.netloc}" if auth.netloc else "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return page_headers(policy)


def _document_errors(schema: dict[str, Any]) -> None:
    """Document errors as problem+json instead of FastAPI's own validation error format."""
    invalid = error_responses(BodyInvalid)[422]
    problem = {PROBLEM_JSON: {"schema": ServiceError.schema}}
    for _, operation in operations(schema):
        responses = operation["responses"]
        if "application/json" in responses.get("422", {}).get("content", {}):
            responses["422"] = invalid
        oauth = responses.get("400", {}).get("content", {})  # OAuth endpoints have their own format
        responses["default"] = {"description": "Any other error.", "content": {**oauth, **problem}}
    unused = schema.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        unused.pop(name, None)
