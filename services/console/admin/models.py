"""Models and their versions: what is live, how it does, and the commands that change it."""

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.health import judge_drift
from services.console.apis import admin_inference
from services.console.apis import inference as inference_api
from services.console.apis.admin_inference import Figures, VersionFigures
from services.console.apis.calls import ApiProblem, Part, load
from services.console.design.pages import show
from services.console.sessions.guards import Administrator
from services.console.state import AppApis

router = new_router(prefix="/admin/models", tag="administration")

_MAX_VERSIONS = 50
_MAX_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Version:
    """A version in the list of a model."""

    name: str
    live: bool
    state: str
    reason: str
    released_at: str | None
    sunset: str | None
    figures: VersionFigures


@router.get("")
async def models_page(request: Request, session: Administrator, apis: AppApis) -> Response:
    """List the models with their live versions."""
    versions = await load(admin_inference.list_versions(apis.inference, token=session.token))
    by_model: dict[str, list[dict[str, Any]]] = {}
    for each in versions.value or ():
        by_model.setdefault(each["name"], []).append(each)
    return show(request, "admin/models.html.j2", versions=versions, by_model=by_model)


@router.get("/{model}")
async def model_page(
    model: str, request: Request, session: Administrator, apis: AppApis
) -> Response:
    """Show a model's versions, and how the live one does."""
    inference, token = apis.inference, session.token
    status, card, index, figures = await asyncio.gather(
        load(_describe(apis, token=token, model=model)),
        load(inference_api.read_card(inference, model=model, token=token)),
        load(admin_inference.list_versions(inference, token=token)),
        load(admin_inference.read_figures(inference)),
    )
    counted = figures.value or Figures()
    live = counted.of_version(model, status.value["version"]) if status.value else None
    versions = Part[list[Version]](problem=index.problem)
    if index.value is not None:
        versions = Part(_versions(model, index.value, card.value, counted))
    return show(
        request,
        "admin/model.html.j2",
        status=404 if status.value is None and status.problem is None else 200,
        model=model,
        status_part=status,
        card=card,
        versions=versions,
        live=live,
        has_figures=figures.value is not None,
        unanswered=counted.of_model(model),
        drifted=sorted(live.column_drift.items(), key=lambda each: -each[1])[:_MAX_COLUMNS]
        if live
        else [],
        judge_drift=judge_drift,
        commands=_commands(model),
    )


async def _describe(apis: AppApis, *, token: str, model: str) -> dict[str, Any] | None:
    """Return the live version of a model; None if the model is not live."""
    try:
        return await admin_inference.describe_model(apis.inference, token=token, model=model)
    except ApiProblem as problem:
        if problem.status == 404:
            return None
        raise


def _versions(
    model: str,
    index: list[dict[str, Any]],
    card: Mapping[str, Any] | None,
    figures: Figures,
) -> list[Version]:
    """Return the versions of a model, newest first."""
    released = {each["version"]: each for each in (card["versions"] if card else ())}
    own = sorted(
        (each for each in index if each["name"] == model), key=lambda each: each["version"]
    )
    return [
        Version(
            name=each["version"],
            live=each["live"],
            state=each["state"],
            reason=each["reason"],
            released_at=released.get(each["version"], {}).get("released_at"),
            sunset=released.get(each["version"], {}).get("sunset"),
            figures=figures.of_version(model, each["version"]),
        )
        for each in reversed(own[-_MAX_VERSIONS:])
    ]


def _commands(model: str) -> list[tuple[str, str]]:
    """Return what changes a model: only the registry's own command does."""
    name = shlex.quote(model)
    begin = "tollgate models"
    return [
        ("Release", f"{begin} release {name} --to VERSION --reason 'better on new data'"),
        ("Canary", f"{begin} canary {name} --to VERSION --percent 5\n{begin} canary {name} --off"),
        ("Roll back", f"{begin} rollback {name} --reason 'wrong predictions'"),
        ("Deprecate", f"{begin} deprecate {name} VERSION --sunset 2027-01-31"),
        ("Report", f"{begin} report {name}\n{begin} show {name}"),
    ]
