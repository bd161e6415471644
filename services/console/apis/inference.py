"""What the console asks inference."""

from dataclasses import dataclass
from typing import Any

from services.console.apis.calls import Api


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A public model, as the catalogue lists it."""

    name: str
    title: str
    summary: str
    version: str
    task: str
    columns: list[Any]


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
