"""What the console asks inference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from services.console.apis.calls import Api, read_json


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A public model, as the catalogue lists it."""

    name: str
    title: str
    summary: str
    version: str
    task: str
    columns: list[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction, and its receipt."""

    document: dict[str, Any]
    event: str
    amount: str
    """The amount and its currency, such as `0.0005 USD`."""


async def list_catalogue(inference: Api) -> list[CatalogueModel]:
    """Return the public models."""
    document = await inference.get("/v1/catalogue")
    return [
        CatalogueModel(
            name=each["name"],
            title=each["title"] or each["name"],
            summary=each["summary"] or "",
            version=each["version"],
            task=each["task"],
            columns=each["columns"],
        )
        for each in document["models"]
    ]


async def read_card(inference: Api, *, model: str, token: str | None) -> dict[str, Any]:
    """Return a model's card; for a model that is not public, the visitor needs the scope."""
    path = f"/v1/models/{quote(model, safe='')}/card"
    headers = {"Accept": "application/json"}
    card: dict[str, Any] = await inference.get(path, token=token, headers=headers)
    return card


async def predict(
    inference: Api,
    *,
    model: str,
    row: Mapping[str, Any],
    parameters: Mapping[str, Any],
    token: str,
    idempotency_key: str,
    verb: str = "predict",
) -> Answer:
    """Predict one row, which is billed to the visitor's account.

    Args:
        verb: `predict` or `explain`.
    """
    return await _call(
        inference,
        f"/v1/models/{quote(model, safe='')}:{verb}",
        token=token,
        idempotency_key=idempotency_key,
        json={"instances": [dict(row)], "parameters": dict(parameters)},
    )


async def predict_csv(
    inference: Api, *, model: str, content: bytes, token: str, idempotency_key: str
) -> Answer:
    """Predict the rows of a CSV with a header, which is billed to the visitor's account."""
    return await _call(
        inference,
        f"/v1/models/{quote(model, safe='')}:predict",
        token=token,
        idempotency_key=idempotency_key,
        content=content,
        headers={"Content-Type": "text/csv"},
    )


async def _call(
    inference: Api, path: str, *, token: str, idempotency_key: str, **request: Any
) -> Answer:
    headers = {**request.pop("headers", {}), "Idempotency-Key": idempotency_key}
    response = await inference.call("POST", path, token=token, headers=headers, **request)
    return Answer(
        document=read_json(response, api=inference.name),
        event=response.headers.get("x-usage-event", ""),
        amount=response.headers.get("x-usage-amount", ""),
    )


def columns_of(card: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the columns of a card, in signature order."""
    columns: Sequence[Mapping[str, Any]] = card["columns"]
    return columns
