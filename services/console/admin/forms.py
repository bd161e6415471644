"""What the forms of administrators have in common: errors beside fields, and what was typed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from services.console.apis.calls import ApiProblem, ApiUnavailable
from services.console.sessions.flashes import Flash


@dataclass(frozen=True, slots=True)
class Sent:
    """A form as it is shown again, with what is wrong; an empty one for a form not sent yet."""

    name: str = ""
    """Which form of the page it is."""
    fields: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    """What is wrong, by the name of the field."""
    notices: tuple[Flash, ...] = ()
    """What is wrong with no field."""
    status: int = 200

    def get(self, form: str, name: str, otherwise: str = "") -> str:
        """Return what was typed into a field of a form."""
        return self.fields.get(name, "") if form == self.name else otherwise

    def error(self, form: str, name: str) -> str | None:
        """Return what is wrong with a field of a form."""
        return self.errors.get(name) if form == self.name else None

    def key(self, form: str, fresh: str) -> str:
        """Return the id that the form is sent under.

        If an API became unavailable, it is the same as before: perhaps the API did what the form
        asks.
        """
        return self.fields["once"] if form == self.name and "once" in self.fields else fresh


def refused(
    name: str,
    fields: Mapping[str, str],
    error: ApiProblem | ApiUnavailable,
    *,
    shown: Collection[str],
) -> Sent:
    """Return a form that an API refused.

    Args:
        name: of the form.
        shown: the fields beside which an error can be shown.
    """
    if isinstance(error, ApiUnavailable):
        text = (
            f"{error.name.capitalize()} does not answer, so it is unclear whether this was done. "
            "Send the form again: it is done only once."
        )
        return Sent(name, fields, notices=(Flash("danger", text),), status=503)
    errors, notices = dict[str, str](), list[Flash]()
    for location, text in error.errors.items():
        parts = [part for part in location.split(".") if part in shown]
        if parts:
            errors[parts[-1]] = text
        else:
            notices.append(Flash("danger", f"{location}: {text}" if location else text))
    if not errors and not notices:
        notices.append(Flash("danger", error.detail))
    return Sent(name, _without_key(fields), errors, tuple(notices), error.status)


def incomplete(name: str, fields: Mapping[str, str], errors: Mapping[str, str]) -> Sent:
    """Return a form with errors that needed no API."""
    return Sent(name, _without_key(fields), errors, status=422)


def is_account(text: str) -> bool:
    """Return whether a text is the id of an account in its usual form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _without_key(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name != "once"}
