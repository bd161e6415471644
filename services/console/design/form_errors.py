"""What is wrong with a form that an API refused."""

from collections.abc import Collection

from services.console.apis.calls import ApiProblem, ApiUnavailable
from services.console.sessions.flashes import Flash


def explain(
    error: ApiProblem | ApiUnavailable | None, *, fields: Collection[str], unavailable: str
) -> tuple[int, dict[str, str], list[Flash]]:
    """Return the page's status, the errors by field, and the notice about no field.

    Args:
        fields: those of the form, beside which an error can be shown.
        unavailable: what the notice says if the API is unavailable.
    """
    if error is None:
        return 200, {}, []
    if isinstance(error, ApiUnavailable):
        return 503, {}, [Flash("danger", unavailable)]
    errors = {location.partition(".")[0]: text for location, text in error.errors.items()}
    is_shown = not errors.keys().isdisjoint(fields)
    return error.status, errors, [] if is_shown else [Flash("danger", error.detail)]
