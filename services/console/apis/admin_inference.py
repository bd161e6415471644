"""What administrators ask inference, and how it and the other services do."""

import math
import re
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
_SERVER_ERROR = 500
_READ = (
    "tollgate_inference_failures_total{",
    "tollgate_inference_predictions_total{",
    "tollgate_feedback_",
    "tollgate_canary_requests_total{",
    "tollgate_model_canary_percent{",
    "tollgate_drift_",
    "http_request_duration_seconds_bucket{",
)
"""How the samples begin that pages show; with labels, and without the comments beside them."""
_NOT_METRICS = ("{", "<")
"""How JSON and HTML begin, such as a proxy's."""
_PREDICTION = re.compile(r"/v[12]/models/\S*(?::predict|:explain|/infer)")
"""The routes of predictions."""


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
    """What the inference process that answered has counted about a version since it started."""

    predictions: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Rows with a reported outcome: `correct`, `wrong`, `measured` or `unjudged`."""
    mean_error: float | None = None
    drift_rows: int = 0
    prediction_drift: float | None = None
    """Population stability index of the predictions."""
    column_drift: dict[str, float] = field(default_factory=dict)
    canary_percent: float | None = None
    """The share of the callers that it answers as the canary; None if it is not one."""
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


@dataclass(slots=True)
class Unanswered:
    """Requests for predictions that had no prediction as their answer."""

    refused: int = 0
    """Those that callers can cure: a status below 500."""
    failed: int = 0
    """Errors of the platform: a status of 500 or above."""


@dataclass(slots=True)
class Durations:
    """How long requests took, as a histogram."""

    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    """How many requests took at most so many seconds."""

    def quantile(self, share: float) -> float | None:
        """Return within how many seconds a share of the requests was answered.

        It is interpolated inside a bucket, as Prometheus does. What took longer than the last
        finite bound is counted as that bound; None without requests.
        """
        wanted = share * self.buckets.get(math.inf, 0.0)
        below, counted = 0.0, 0.0
        for bound, count in sorted(self.buckets.items()):
            if wanted and count >= wanted:
                if bound == math.inf:
                    return below
                return below + (bound - below) * (wanted - counted) / (count - counted)
            below, counted = bound, count
        return None


@dataclass(slots=True)
class Figures:
    """What the inference process that answered has counted since it started."""

    versions: dict[tuple[str, str], VersionFigures] = field(
        default_factory=lambda: defaultdict(VersionFigures)
    )
    """By model and version."""
    unanswered: dict[str, Unanswered] = field(default_factory=lambda: defaultdict(Unanswered))
    """By model; under an empty name those for models that are not served."""
    durations: Durations = field(default_factory=Durations)
    """Of all requests for predictions."""

    def of_version(self, model: str, version: str) -> VersionFigures:
        """Return the figures of a version; empty ones if nothing is counted yet."""
        return self.versions.get((model, version)) or VersionFigures()

    def of_model(self, model: str) -> Unanswered:
        """Return what a model did not answer."""
        return self.unanswered.get(model) or Unanswered()

    @property
    def answered(self) -> int:
        """The requests that were answered with a prediction."""
        return sum(each.predictions for each in self.versions.values())

    @property
    def refused(self) -> int:
        """The requests that callers must change."""
        return sum(each.refused for each in self.unanswered.values())

    @property
    def failed(self) -> int:
        """The requests that failed."""
        return sum(each.failed for each in self.unanswered.values())

    @property
    def error_share(self) -> float | None:
        """The share of requests that failed; None without requests."""
        requests = self.answered + self.refused + self.failed
        return self.failed / requests if requests else None


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
    """Return what inference counts, from its metrics.

    Raises:
        ApiUnavailable, ApiProblem: the metrics cannot be read.
    """
    try:
        response = await inference.call("GET", "/metrics")
        return parse_figures(response.text)
    except (ValueError, ApiProblem) as error:
        raise ApiUnavailable(inference.name) from error


def parse_figures(text: str) -> Figures:
    """Return the figures in metrics in Prometheus's text format.

    Raises:
        ValueError: it is another format.
    """
    found = Figures()
    errors: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    lines = text.splitlines()
    if any(line.startswith(_NOT_METRICS) for line in lines):
        raise ValueError("invalid metrics")
    # The parser takes longer than all else on a page, and most samples are not read.
    wanted = "\n".join(line for line in lines if line.startswith(_READ))
    for family in text_string_to_metric_families(wanted):
        for name, labels, value, *_ in family.samples:
            if value != value:
                continue
            if name == "tollgate_inference_failures_total":
                unanswered = found.unanswered[labels["model"]]
                if int(labels["status"]) < _SERVER_ERROR:
                    unanswered.refused += int(value)
                else:
                    unanswered.failed += int(value)
            elif name == "http_request_duration_seconds_bucket":
                if labels["method"] == "POST" and _is_prediction(labels["route"]):
                    found.durations.buckets[float(labels["le"])] += value
            elif {"model", "version"} <= labels.keys():
                key = (labels["model"], labels["version"])
                _add(found.versions[key], name, labels, value)
                if name.startswith("tollgate_feedback_absolute_error_"):
                    errors[key][name.rpartition("_")[2]] = value
    for key, sums in errors.items():
        if sums.get("count"):
            found.versions[key].mean_error = sums["sum"] / sums["count"]
    return found


def _is_prediction(route: str) -> bool:
    return _PREDICTION.fullmatch(route) is not None


def _add(figures: VersionFigures, name: str, labels: Mapping[str, str], value: float) -> None:
    """Count a sample of a version's metric."""
    if name == "tollgate_inference_predictions_total":
        figures.predictions += int(value)
    elif name == "tollgate_feedback_rows_total":
        figures.outcomes[labels["outcome"]] += int(value)
    elif name == "tollgate_model_canary_percent":
        figures.canary_percent = value
    elif name == "tollgate_canary_requests_total":
        figures.canary[labels["outcome"]] += int(value)
    elif name == "tollgate_drift_rows":
        figures.drift_rows = int(value)
    elif name == "tollgate_drift_prediction_psi":
        figures.prediction_drift = value
    elif name == "tollgate_drift_column_psi":
        figures.column_drift[labels["column"]] = value
