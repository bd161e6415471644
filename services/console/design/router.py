"""The files of the design system, and the page that shows all components."""

from decimal import Decimal

from fastapi import HTTPException, Request, Response

from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.console.apis.calls import Part
from services.console.design.assets import assets
from services.console.design.pages import show
from services.console.sessions.flashes import Flash
from services.console.sessions.guards import MaybeSignedIn

router = new_router(tag="design")

_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_DAYS = [3, 8, 5, 12, 18, 9, 0, 14, 21, 25, 19, 30, 27, 34]
_POINTS = [
    (f"Nov {day}", Decimal(count) / 100, f"${count / 100:.2f}")
    for day, count in enumerate(_DAYS, start=1)
]
_CONTRIBUTIONS = [
    ("proline", 1.82, "+1.820"),
    ("flavanoids", 1.24, "+1.240"),
    ("color_intensity", -0.71, "−0.710"),
    ("malic_acid", 0.2, "+0.200"),
    ("(other)", -0.05, "−0.050"),
]


@router.get("/assets/{name}")
@public
async def asset(name: str) -> Response:
    """Return a file that never changes under its name."""
    found = assets().get(name)
    if found is None:
        raise HTTPException(404)
    return Response(found.content, media_type=found.media_type, headers=_FOREVER)


@router.get("/design")
@public
async def design(request: Request, session: MaybeSignedIn) -> Response:
    """Show every component in its states."""
    return show(
        request,
        "design/design.html.j2",
        notices=[Flash("success", "Your key was deleted.")],
        points=_POINTS,
        contributions=_CONTRIBUTIONS,
        unavailable=Part[str](problem="Billing is unavailable at the moment. Try again soon."),
    )
