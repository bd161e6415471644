"""What administrators ask inference, and how it and the other services do."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, read_json

Document = dict[str, Any]

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service is alive, and whether it can do its job."""

    name: str
    alive: bool
    ready: bool
    failing: str | None = None
    """The names of the checks that fail."""


@dataclass(slots=True)
class VersionFigures:
    """What the process of inference that answered has counted about a version since it started."""

    predictions: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Rows with a reported outcome: `correct`, `wrong`, `measured` or `unjudged`."""
    mean_error: float | None = None
    drift_rows: int = 0
    prediction_drift: float | None = None
    """Population stability index of the predictions."""
    column_drift: dict[str, float] = field(default_factory=dict)
    canary: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Requests of a canary: `answered` or `failed`."""

    @property
    def accuracy(self) -> float | None:
        """The share of correct predictions among those with a reported outcome."""
        judged = self.outcomes["correct"] + self.outcomes["wrong"]
        return self.outcomes["correct"] / judged if judged else None

    @property
    def worst_column(self) -> tuple[str, float] | None:
        """The column that has drifted most, and its index."""
        return max(self.column_drift.items(), key=lambda each: each[1], default=None)


Figures = Mapping[tuple[str, str], VersionFigures]
"""By model and version."""


async def check_health(api: Api) -> Health:
    """Return how a service does; never raises."""
    try:
        answer = await api.http.get(f"{api.url}/readyz", timeout=_PROBE_TIMEOUT_S)
    except httpx.HTTPError:
        return Health(api.name, alive=False, ready=False)
    failing = None
    if not answer.is_success:
        try:
            failing = ", ".join(sorted(read_json(answer, api=api.name)["failing"]))
        except (ApiUnavailable, KeyError, TypeError):
            failing = f"It answered {answer.status_code}."
    return Health(api.name, alive=True, ready=answer.is_success, failing=failing or None)


async def list_models(inference: Api, *, token: str) -> list[str]:
    """Return the names of the models that are served."""
    names: list[str] = (await inference.get("/v1/models", token=token))["models"]
    return sorted(names)


async def describe_model(inference: Api, *, token: str, model: str) -> Document:
    """Return the live version of a model, its release, signature and metrics."""
    status: Document = await inference.get(f"/v1/models/{quote(model, safe='')}", token=token)
    return status


async def list_versions(inference: Api, *, token: str) -> list[Document]:
    """Return all versions of all models: `name`, `version`, `state`, `reason` and `live`."""
    response = await inference.call("POST", "/v2/repository/index", token=token, json={})
    versions: list[Document] = read_json(response, api=inference.name)
    return versions


async def read_figures(inference: Api) -> Figures:
    """Return what inference counts about each version, from its metrics.

    Raises:
        ApiUnavailable, ApiProblem: the metrics cannot be read.
    """
    try:
        response = await inference.call("GET", "/metrics")
        return parse_figures(response.text)
    except (ValueError, ApiProblem) as error:
        raise ApiUnavailable(inference.name) from error


def parse_figures(text: str) -> Figures:
    """Return the figures of each version in metrics in Prometheus's text format.

    Raises:
        ValueError: it is another format.
    """
    found: dict[tuple[str, str], VersionFigures] = defaultdict(VersionFigures)
    errors: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if not {"model", "version"} <= labels.keys() or value != value:
                continue
            key = (labels["model"], labels["version"])
            if name == "tollgate_inference_predictions_total":
                found[key].predictions += int(value)
            elif name == "tollgate_feedback_rows_total":
                found[key].outcomes[labels["outcome"]] += int(value)
            elif name == "tollgate_canary_requests_total":
                found[key].canary[labels["outcome"]] += int(value)
            elif name == "tollgate_drift_rows":
                found[key].drift_rows = int(value)
            elif name == "tollgate_drift_prediction_psi":
                found[key].prediction_drift = value
            elif name == "tollgate_drift_column_psi":
                found[key].column_drift[labels["column"]] = value
            elif name.startswith("tollgate_feedback_absolute_error_"):
                errors[key][name.rpartition("_")[2]] = value
    for key, sums in errors.items():
        if sums.get("count"):
            found[key].mean_error = sums["sum"] / sums["count"]
    return dict(found)
