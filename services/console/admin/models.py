"""Models and their versions: what is live, how it does, and the commands that change it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.health import judge_drift
from services.console.admin.versions import (
    Version,
    commands_of_canary,
    commands_of_model,
    commands_of_version,
    list_versions,
)
from services.console.apis import admin_inference
from services.console.apis import inference as inference_api
from services.console.apis.admin_inference import Figures
from services.console.apis.calls import ApiProblem, Part, load
from services.console.design.pages import show
from services.console.sessions.guards import Administrator
from services.console.state import AppApis

router = new_router(prefix="/admin/models", tag="administration")

_MAX_COLUMNS = 12
_JUDGED_FROM = 50
"""How many requests a canary needs in an inference process before it is judged there."""


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
        versions = Part(list_versions(model, index.value, card.value, counted))
    found = versions.value or []
    release = status.value["release"] if status.value else None
    today = datetime.now(UTC).date()
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
        canary=next((each for each in found if each.canary_percent is not None), None),
        judged_from=_JUDGED_FROM,
        commands_of_canary=commands_of_canary,
        commands=commands_of_model(model, inference=inference.url),
        commands_of={
            each.name: commands_of_version(model, each, found, release=release, today=today)
            for each in found
        },
    )


async def _describe(apis: AppApis, *, token: str, model: str) -> dict[str, Any] | None:
    """Return the live version of a model; None if the model is not live."""
    try:
        return await admin_inference.describe_model(apis.inference, token=token, model=model)
    except ApiProblem as problem:
        if problem.status == 404:
            return None
        raise
