"""Read dates from the command line."""

from datetime import UTC, datetime

import typer


def parse_future(text: str, *, option: str) -> datetime:
    """Parse a date or a time; a date means midnight UTC at its start, as does a time without zone.

    Raises:
        BadParameter: the text is neither a date nor a time, or is in the past.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{option} must be a date such as 2026-12-31") from None
    if moment <= datetime.now(UTC):
        raise typer.BadParameter(f"{option} must not be in the past")
    return moment
