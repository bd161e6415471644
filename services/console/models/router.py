"""The catalogue, and a page with a playground for each model."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from fastapi import HTTPException, Request, Response

from services.common.http.routing import new_router
from services.common.identity.guards import public
from services.console.apis import inference as inference_api
from services.console.apis.calls import ApiProblem, ApiUnavailable, load
from services.console.apis.inference import Answer
from services.console.design.pages import see_other, show
from services.console.models.prices import find_tariff
from services.console.models.rows import example_fields, field_errors, field_name, read_row
from services.console.models.samples import code_samples
from services.console.models.tables import (
    MAX_ROWS,
    UnusableTable,
    describe_errors,
    download_address,
    read_table,
    too_large,
)
from services.console.sessions.flashes import Flash
from services.console.sessions.guards import MaybeSignedIn, SentForm, SignedIn
from services.console.sessions.uploads import FormWithFile, SentFile
from services.console.sessions.visitors import Session
from services.console.settings import ConsoleSettings
from services.console.state import Apis, AppApis

router = new_router(tag="models")

_MAX_SHOWN = 20
"""Rows of a CSV whose predictions are shown."""
_NOTHING = "Choose a file, or paste rows below."
_EXPLAINED = 10
"""Columns that an explanation names."""


@router.get("/")
@public
async def catalogue(request: Request, session: MaybeSignedIn, apis: AppApis) -> Response:
    """Show the public models with their prices."""
    models, tariff = await asyncio.gather(
        load(inference_api.list_catalogue(apis.inference)), load(find_tariff(apis.billing, session))
    )
    return show(request, "models/catalogue.html.j2", models=models, tariff=tariff)


@router.get("/models/{model}")
@public
async def model_page(
    model: str, request: Request, session: MaybeSignedIn, apis: AppApis
) -> Response:
    """Show what a model predicts, from what, how well and for how much; and its playground."""
    return await _show(request, apis, session, model)


@dataclass(frozen=True, slots=True)
class Tried:
    """What someone entered in a playground, and what it led to."""

    fields: Mapping[str, str]
    csv: str = ""
    """The rows that were pasted."""
    file: str = ""
    """The name of the file that was chosen."""
    errors: Mapping[str, str] = field(default_factory=dict)
    table_errors: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with a CSV, by the field that it came from."""
    problems: Sequence[str] = ()
    prediction: Answer | None = None
    explanation: Answer | None = None
    table: Answer | None = None
    status: int = 200


@router.post("/models/{model}")
async def try_model(
    model: str, request: Request, session: SignedIn, form: SentForm, apis: AppApis
) -> Response:
    """Predict what someone entered; it is billed like any other prediction.

    The form's id is the idempotency key, so a form that is sent twice is billed once.
    """
    card = await _read_card(apis, session, model)
    tried = await _try_row(apis, session, model, card, form)
    return await _show(request, apis, session, model, card=card, tried=tried)


@router.get("/models/{model}/rows")
@public
async def rows_page(model: str) -> Response:
    """Lead who opens the address of a result again to the playground."""
    return see_other(f"/models/{quote(model, safe='')}")


@router.post("/models/{model}/rows")
async def try_rows(
    model: str, request: Request, session: SignedIn, sent: SentFile, apis: AppApis
) -> Response:
    """Predict the rows of a CSV, which was chosen as a file or pasted; otherwise as one row."""
    card = await _read_card(apis, session, model)
    tried = await _try_table(apis, session, model, card, sent)
    return await _show(request, apis, session, model, card=card, tried=tried)


def _call_key(session: Session, form: Mapping[str, str]) -> str:
    """Return the idempotency key of a form's calls, each of which has its own path."""
    return f"{session.id[:16]}-{form.get('once', '')}"[:200]


async def _try_row(
    apis: Apis, session: Session, model: str, card: Mapping[str, Any], form: SentForm
) -> Tried:
    columns = inference_api.columns_of(card)
    fields = {name: form.get(name, "") for name in map(field_name, (c["name"] for c in columns))}
    parameters = {"probabilities": True} if card["task"] == "classification" else {}
    prediction = explanation = None
    try:
        prediction = await inference_api.predict(
            apis.inference,
            model=model,
            row=read_row(columns, form),
            parameters=parameters,
            token=session.token,
            idempotency_key=_call_key(session, form),
        )
        if form.get("action") == "explain":
            explanation = await inference_api.predict(
                apis.inference,
                model=model,
                row=read_row(columns, form),
                parameters={"top": _EXPLAINED},
                token=session.token,
                idempotency_key=_call_key(session, form),
                verb="explain",
            )
    except (ApiProblem, ApiUnavailable) as error:
        return _failed(Tried(fields, prediction=prediction), error)
    return Tried(fields, prediction=prediction, explanation=explanation)


async def _try_table(
    apis: Apis, session: Session, model: str, card: Mapping[str, Any], sent: FormWithFile
) -> Tried:
    pasted, file = sent.fields.get("csv", ""), sent.file
    field = "file" if file or sent.is_too_large else "csv"
    tried = Tried({}, csv=pasted, file=file.name if file else "")
    if not file and not pasted.strip() and not sent.is_too_large:
        return replace(tried, table_errors={"file": _NOTHING}, status=422)
    try:
        if sent.is_too_large:
            raise too_large()
        content = read_table(
            file.content if file else pasted.encode(),
            columns={each["name"] for each in inference_api.columns_of(card)},
        )
    except UnusableTable as error:
        return replace(tried, table_errors={field: str(error)}, status=422)
    try:
        table = await inference_api.predict_csv(
            apis.inference,
            model=model,
            content=content,
            token=session.token,
            idempotency_key=_call_key(session, sent.fields),
        )
    except ApiUnavailable as error:
        return _failed(tried, error)
    except ApiProblem as error:
        if not error.errors:
            return _failed(tried, error)
        return replace(
            tried, table_errors={field: describe_errors(error.errors)}, status=error.status
        )
    return replace(tried, table=table)


def _failed(tried: Tried, error: ApiProblem | ApiUnavailable) -> Tried:
    """Return what was entered with what is wrong, beside the fields where possible."""
    by_field: dict[str, str] = {}
    if isinstance(error, ApiUnavailable):
        status, problems = 503, [f"{error.name.capitalize()} is unavailable. Try again."]
    else:
        status = error.status
        by_field, problems = field_errors(error.errors)
        if not error.errors:
            problems = [error.detail]
    return replace(
        tried,
        errors={name: text for name, text in by_field.items() if name in tried.fields},
        problems=problems
        + [f"{name}: {text}" for name, text in by_field.items() if name not in tried.fields],
        status=status,
    )


async def _read_card(apis: Apis, session: Session | None, model: str) -> dict[str, Any]:
    """Return the card of a model that the visitor may read about.

    Raises:
        HTTPException: the visitor may not read about such a model.
    """
    token = session.token if session is not None and session.may("predict") else None
    try:
        return await inference_api.read_card(apis.inference, model=model, token=token)
    except ApiProblem as problem:
        if problem.status in (401, 404):
            raise HTTPException(404) from problem
        raise


async def _show(
    request: Request,
    apis: Apis,
    session: Session | None,
    model: str,
    *,
    card: dict[str, Any] | None = None,
    tried: Tried | None = None,
) -> Response:
    settings: ConsoleSettings = request.app.state.settings
    card = card or await _read_card(apis, session, model)
    columns = inference_api.columns_of(card)
    example = example_fields(columns)
    tried = tried or Tried({})
    return show(
        request,
        "models/model.html.j2",
        status=tried.status,
        notices=[Flash("danger", problem) for problem in tried.problems],
        card=card,
        model=model,
        tariff=await load(find_tariff(apis.billing, session)),
        tried=tried,
        fields=tried.fields or example,
        field_name=field_name,
        samples=code_samples(
            inference_url=settings.inference_url,
            model=model,
            row={each["name"]: each["example"] for each in columns},
        ),
        max_shown=_MAX_SHOWN,
        max_rows=MAX_ROWS,
        download=download_address(card["target"], tried.table.document["predictions"])
        if tried.table
        else None,
    )
