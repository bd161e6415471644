"""Predict a released model's warm-up rows as a caller would, and judge the response.

Only the model is judged. "wrong" means that inference responded differently from the signed
manifest. Anything else that prevents a response (auth, billing, a proxy, a missing plan) is
"unknown".
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from cli.serving.machine import Auth, NoToken
from cli.settings import LocalSettings
from registry.records import Manifest
from registry.tolerances import is_as_recorded

TIMEOUT_S = 10.0
PAUSE_S = 2.0
WRONG_TIMES = 2
"""Wrong responses in a row for a verdict; a single one may come from a process shutting down."""

Verdict = Literal["good", "wrong", "unknown"]


class NoAnswer(Exception):
    """Inference did not respond; the message is a sentence that says why."""


@dataclass(frozen=True)
class Finding:
    """A verdict, and the reason in one sentence."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Received:
    """A response from inference: status, model version, and JSON document."""

    status: int
    version: str | None
    document: Mapping[str, Any]


def judge_answer(received: Received, manifests: Mapping[str, Manifest], *, asked: str) -> Finding:
    """Judge a released model by its response to the warm-up rows.

    Args:
        manifests: of the versions that may respond, by name.
        asked: the version whose warm-up rows were sent.
    """
    problem = str(received.document.get("type", "")).rpartition(":")[2].rpartition("/")[2]
    match received.status:
        case 200:
            pass
        case 404 if problem == "model_not_found":
            return Finding("wrong", "Inference does not serve the model.")
        case 422:
            return Finding("wrong", "Inference rejects the model's own warm-up rows.")
        case 500 if problem:
            return Finding("wrong", "Inference fails on the model's own warm-up rows.")
        case 402:
            return Finding("unknown", "The checking account has no plan or no credit.")
        case status:
            return Finding("unknown", f"Inference responded {status}.")
    manifest = manifests.get(received.version or "")
    if manifest is None:
        return Finding("wrong", f"Version {received.version} responded, but is not released.")
    if manifest.version != asked:
        return Finding("unknown", "Another released version responded.")
    recorded = manifest.warm_up
    predictions = received.document.get("predictions")
    probabilities = received.document.get("probabilities")
    if not isinstance(predictions, list):
        return Finding("unknown", "The response has no predictions.")
    if recorded.rows and not is_as_recorded(recorded, predictions, probabilities):
        return Finding("wrong", f"Version {manifest.version} does not predict as recorded.")
    return Finding("good", f"Version {manifest.version} predicts as recorded.")


def check_model(
    model: str,
    manifests: Mapping[str, Manifest],
    *,
    url: str,
    auth_url: str,
    settings: LocalSettings,
    within_s: float,
) -> Finding:
    """Predict until the outcome is clear or the time is up.

    Args:
        manifests: of the versions that may respond, by name; the live one comes first.
        url: public URL of inference.
    """
    deadline = time.monotonic() + within_s
    asked = next(iter(manifests.values()))
    wrong = 0
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        auth = Auth(http, auth_url)
        while True:
            try:
                with auth.client(settings) as credentials:
                    token = auth.token(credentials)
                    received = _predict(http, url, asked, token=token)
                    # Each version has rows of its own; which one answers a caller stays the same.
                    answering = manifests.get(received.version or "", asked)
                    if answering.version != asked.version:
                        asked = answering
                        received = _predict(http, url, asked, token=token)
                finding = judge_answer(received, manifests, asked=asked.version)
            except (NoToken, NoAnswer) as error:
                finding = Finding("unknown", str(error))
            wrong = wrong + 1 if finding.verdict == "wrong" else 0
            clear = finding.verdict == "good" or wrong >= WRONG_TIMES
            if clear or time.monotonic() >= deadline:
                return finding if clear or finding.verdict == "unknown" else _unsure(finding)
            time.sleep(PAUSE_S)


def _unsure(finding: Finding) -> Finding:
    """Return "unknown" for a single wrong response without time to confirm it."""
    return Finding("unknown", f"{finding.detail} This was seen only once.")


def _predict(http: httpx.Client, url: str, asked: Manifest, *, token: str) -> Received:
    """Return inference's response to the warm-up rows of a version.

    Raises:
        NoAnswer: inference is unavailable.
    """
    signature = asked.signature
    body: dict[str, Any] = {"instances": asked.warm_up.rows or [[None] * len(signature.columns)]}
    if signature.task == "classification":
        body["parameters"] = {"probabilities": True}
    try:
        response = http.post(
            f"{url.rstrip('/')}/v1/models/{asked.model}:predict",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"Inference is unavailable: {type(error).__name__}.") from error
    try:
        document = response.json()
    except ValueError:
        document = {}
    return Received(
        response.status_code,
        response.headers.get("X-Model-Version"),
        document if isinstance(document, dict) else {},
    )
