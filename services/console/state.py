"""The resources of the app, as dependencies."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.console.apis.calls import Api
from services.console.sessions.once import OnceForms
from services.console.settings import ConsoleSettings


@dataclass(frozen=True, slots=True)
class Apis:
    """The three APIs, over one client."""

    auth: Api
    inference: Api
    billing: Api


async def _apis(request: Request) -> Apis:
    apis: Apis = request.app.state.apis
    return apis


async def _settings(request: Request) -> ConsoleSettings:
    settings: ConsoleSettings = request.app.state.settings
    return settings


async def _once(request: Request) -> OnceForms:
    once: OnceForms = request.app.state.once
    return once


AppApis = Annotated[Apis, Depends(_apis)]
AppSettings = Annotated[ConsoleSettings, Depends(_settings)]
AppOnce = Annotated[OnceForms, Depends(_once)]
