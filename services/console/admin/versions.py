"""The versions of a model, and the commands that change which of them is live.

No service releases a version because a request asks for it (docs/adr/0023), so the console shows
what to run where the model store can be written.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from services.console.apis.admin_inference import Figures, VersionFigures

_MAX_VERSIONS = 50
_FIRST_PERCENT = 5
_PERCENTS = (25, 50, 100)
"""The steps in which a canary gets more callers."""
_NOTICE = timedelta(days=90)
"""How long callers have to switch from a deprecated version, if nothing else is chosen."""
_WHY = "--reason 'say why'"
_PINS = "New versions are not released automatically until you release one or unpin the model."


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the list of a model."""

    name: str
    live: bool
    state: str
    released_at: str | None
    """When it first went live; None if it never did."""
    sunset: str | None
    """When it may stop answering; None if it is not deprecated."""
    figures: VersionFigures

    @property
    def canary_percent(self) -> float | None:
        """The share of the callers that it answers as the canary; None if it is not one."""
        return None if self.live else self.figures.canary_percent


@dataclass(frozen=True, slots=True)
class Command:
    """What changes the state of a version, ready to be run."""

    title: str
    effect: str
    text: str


def list_versions(
    model: str,
    index: Sequence[Mapping[str, Any]],
    card: Mapping[str, Any] | None,
    figures: Figures,
) -> list[Version]:
    """Return the versions of a model, newest first.

    Args:
        index: all versions of all models.
        card: names the versions that have been live; None if it is unknown.
    """
    released = {each["version"]: each for each in (card["versions"] if card else ())}
    own = sorted(
        (each for each in index if each["name"] == model), key=lambda each: str(each["version"])
    )
    return [
        Version(
            name=each["version"],
            live=each["live"],
            state=each["state"],
            released_at=released.get(each["version"], {}).get("released_at"),
            sunset=released.get(each["version"], {}).get("sunset"),
            figures=figures.of_version(model, each["version"]),
        )
        for each in reversed(own[-_MAX_VERSIONS:])
    ]


def commands_of_version(
    model: str, version: Version, versions: Sequence[Version], *, release: int | None, today: date
) -> list[Command]:
    """Return the commands that make sense for a version in its state.

    Args:
        versions: all that the model has, and so `version`.
        release: the number of the live release; None if no version is live.
    """
    others = [each for each in versions if each.name != version.name]
    if version.live:
        found = [_leave(model, release, others)]
    elif version.canary_percent is not None:
        return commands_of_canary(model, version.name, version.canary_percent)
    else:
        found = [_go_live(model, version, others)]
        if release is not None:
            found.append(
                Command(
                    "Canary",
                    f"It answers {_FIRST_PERCENT} % of the callers, and is rolled back by itself if"
                    " it does worse.",
                    _text("canary", model, f"--to {_quoted(version)} --percent {_FIRST_PERCENT}"),
                )
            )
    if version.released_at is not None:
        found.append(_deprecate(model, version, today))
    return found


def commands_of_canary(model: str, version: str, percent: float) -> list[Command]:
    """Return the commands that end a canary, well or not, or give it more callers."""
    to = f"--to {shlex.quote(version)}"
    found = [
        Command(
            "Promote",
            "It answers all callers, and the canary ends.",
            _text("release", model, f"{to} {_WHY}"),
        )
    ]
    more = next((each for each in _PERCENTS if each > percent), None)
    if more is not None:
        found.append(
            Command(
                "More callers",
                f"It answers {more} % of the callers. Those that it answers now stay with it.",
                _text("canary", model, f"{to} --percent {more}"),
            )
        )
    off = Command("End", "The live version answers all callers.", _text("canary", model, "--off"))
    return [*found, off]


def commands_of_model(model: str, *, inference: str) -> list[tuple[str, str]]:
    """Return the commands that name no version, each with its title.

    Args:
        inference: the address of inference, whose figures the report has.
    """
    return [
        ("Release the newest", _text("release", model, _WHY)),
        ("Roll back", _text("rollback", model, _WHY)),
        ("Report", _text("report", model, f"--url {shlex.quote(inference)}")),
        ("Show the manifest", _text("show", model)),
    ]


def _go_live(model: str, version: Version, others: Sequence[Version]) -> Command:
    to = f"--to {_quoted(version)} {_WHY}"
    live = next((each for each in others if each.live), None)
    if live is not None and version.released_at is not None and version.name < live.name:
        return Command(
            "Roll back to it",
            f"It answers all callers again. {_PINS}",
            _text("rollback", model, to),
        )
    return Command(
        "Release",
        "It answers all callers, if it has passed its gate. A canary ends.",
        _text("release", model, to),
    )


def _leave(model: str, release: int | None, others: Sequence[Version]) -> Command:
    if release is None or any(each.released_at is not None for each in others):
        return Command(
            "Roll back",
            f"The version that was live before answers all callers again. {_PINS}",
            _text("rollback", model, _WHY),
        )
    return Command(
        "Withdraw",
        "No other version has been live, so callers get 404 until you release one.",
        _text("withdraw", model, f"--release {release} {_WHY}"),
    )


def _deprecate(model: str, version: Version, today: date) -> Command:
    command = _text("deprecate", model, _quoted(version))
    if version.sunset is not None:
        return Command(
            "Take the deprecation back",
            "Responses no longer ask callers to switch versions.",
            f"{command} --undo",
        )
    return Command(
        "Deprecate",
        "Responses carry this date as the sunset. The version keeps answering.",
        f"{command} --sunset {(today + _NOTICE).isoformat()}",
    )


def _quoted(version: Version) -> str:
    return shlex.quote(version.name)


def _text(command: str, model: str, rest: str = "") -> str:
    return f"tollgate models {command} {shlex.quote(model)} {rest}".rstrip()
