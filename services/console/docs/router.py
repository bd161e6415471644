"""The docs site, which `make docs` builds."""

from pathlib import Path

from fastapi import HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from services.common.http.pages import page_headers
from services.common.http.routing import new_router
from services.common.identity.guards import public

router = new_router(tag="docs")

_HEADERS = page_headers(
    {"default-src": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'"}
)


@router.get("/docs")
@router.get("/docs/{path:path}")
@public
async def docs(request: Request, path: str = "") -> Response:
    """Return a file of the site; a folder's page is its `index.html`."""
    folder: Path | None = request.app.state.settings.docs_folder
    file = None if folder is None else _find(folder, path)
    if file is None:
        raise HTTPException(404)
    if file.is_dir() and not request.scope["path"].endswith("/"):
        # So that the page's relative links work. The host is the browser's own.
        return RedirectResponse(f"{request.scope['path']}/", status_code=308)
    page = file / "index.html" if file.is_dir() else file
    if not page.is_file():
        raise HTTPException(404)
    return FileResponse(page, headers=_HEADERS)


def _find(folder: Path, path: str) -> Path | None:
    """Return the file or folder under a path of the site, or None if it has none."""
    root = folder.resolve()
    try:
        found = (root / path).resolve()
        return found if found.is_relative_to(root) and found.exists() else None
    except (OSError, ValueError):  # such as a name that is too long, or has a zero byte
        return None
