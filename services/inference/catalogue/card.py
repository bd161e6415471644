"""The card of a model: what a buyer needs to know about its live version."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from registry.cards import Card
from registry.deprecations import Deprecations
from registry.records import Label, Manifest
from services.inference.catalogue.columns import ColumnRead, describe_columns
from services.inference.catalogue.history import ReleasedVersion
from services.inference.catalogue.prices import PriceRead


class MetricsRead(BaseModel):
    """How the version did on rows that it was not trained on.

    `live_version` is the version that was live before, on the same rows; `baseline` is the best
    answer without looking at the columns.
    """

    metric: str | None = Field(description="The metric by which the versions were compared.")
    held_out_rows: int | None
    this_version: dict[str, float]
    live_version: dict[str, float] | None
    baseline: dict[str, float]


class DataRead(BaseModel):
    """What the version was trained on."""

    as_of: datetime = Field(description="When training read the data: no row is newer.")
    rows: int | None
    files: int


class VersionRead(BaseModel):
    """A version that is or was live; deprecated ones have a `sunset`."""

    version: str
    released_at: datetime
    live: bool
    deprecated_since: datetime | None
    sunset: datetime | None


class CardRead(BaseModel):
    """What a model predicts, from what, how well, and for how much."""

    name: str
    title: str
    summary: str
    limitations: str | list[str]
    public: bool
    version: str
    gate: Literal["passed", "failed", "forced"]
    task: Literal["classification", "regression"]
    target: str
    classes: list[Label] | None
    columns: list[ColumnRead]
    metrics: MetricsRead
    data: DataRead
    price: PriceRead
    versions: list[VersionRead]


class CatalogueEntry(BaseModel):
    name: str
    title: str
    summary: str
    version: str
    task: Literal["classification", "regression"]
    columns: list[dict[str, str]] = Field(description="The `name` and `kind` of each column.")


class Catalogue(BaseModel):
    """The public models."""

    models: list[CatalogueEntry]


def is_public(manifest: Manifest) -> bool:
    """Return whether anyone may read about a model whose live version has this manifest."""
    return manifest.card is not None and manifest.card.public


def list_entry(manifest: Manifest) -> CatalogueEntry:
    """Return the catalogue's entry of a model."""
    card = manifest.card or Card()
    return CatalogueEntry(
        name=manifest.model,
        title=card.title or manifest.model,
        summary=card.summary,
        version=manifest.version,
        task=manifest.signature.task,
        columns=[
            {"name": column.name, "kind": column.kind} for column in manifest.signature.columns
        ],
    )


def build_card(
    manifest: Manifest,
    *,
    versions: Sequence[ReleasedVersion],
    deprecations: Deprecations,
    price: PriceRead,
) -> CardRead:
    """Return the card of a model.

    Args:
        manifest: of the live version.
        versions: those that have been live, newest first.
    """
    card, signature = manifest.card or Card(), manifest.signature
    rows = manifest.metrics.get("rows") or {}
    return CardRead(
        name=manifest.model,
        title=card.title or manifest.model,
        summary=card.summary,
        limitations=card.limitations,
        public=card.public,
        version=manifest.version,
        gate=manifest.gate,
        task=signature.task,
        target=signature.target,
        classes=signature.classes,
        columns=describe_columns(manifest),
        metrics=_read_metrics(manifest.metrics),
        data=DataRead(
            as_of=manifest.created_at,
            rows=sum(rows.values()) if rows else None,
            files=len(manifest.data),
        ),
        price=price,
        versions=[_read_version(each, manifest.version, deprecations) for each in versions],
    )


def _read_metrics(metrics: dict[str, Any]) -> MetricsRead:
    live = metrics.get("live")
    return MetricsRead(
        metric=metrics.get("metric"),
        held_out_rows=(metrics.get("rows") or {}).get("held_out"),
        this_version=_figures(metrics.get("candidate")),
        live_version=_figures(live) or None,
        baseline=_figures(metrics.get("dummy")),
    )


def _figures(scores: dict[str, Any] | None) -> dict[str, float]:
    """Return what is a figure, such as `accuracy`, and not a note."""
    return {name: value for name, value in (scores or {}).items() if isinstance(value, float | int)}


def _read_version(released: ReleasedVersion, live: str, deprecations: Deprecations) -> VersionRead:
    deprecation = deprecations.get(released.version)
    return VersionRead(
        version=released.version,
        released_at=released.released_at,
        live=released.version == live,
        deprecated_since=deprecation.since if deprecation else None,
        sunset=deprecation.sunset if deprecation else None,
    )
