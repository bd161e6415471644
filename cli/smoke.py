"""Predict on a released model as a caller would, with its own warm-up rows, and judge the answer.

Only the model is judged. "wrong" means that inference answered, not as the signed manifest says.
Whatever else keeps an answer from coming (auth, billing, a proxy, a missing plan) makes the outcome
"unknown".
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cli.machine import Auth, NoToken

if TYPE_CHECKING:
    import httpx

    from cli.settings import LocalSettings
    from services.common.model_store import Manifest

TIMEOUT_S = 10.0
PAUSE_S = 2.0
WRONG_TIMES = 2
"""So many wrong answers in a row are needed: one may come from a process that is just leaving."""

Verdict = Literal["good", "wrong", "unknown"]


class NoAnswer(Exception):
    """Inference did not answer; the message is one sentence."""


@dataclass(frozen=True)
class Finding:
    """A verdict, and why in one sentence."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Received:
    """An answer of inference: its status, the version that answered, and its JSON document."""

    status: int
    version: str | None
    document: Mapping[str, Any]


def judge_answer(received: Received, manifests: Mapping[str, "Manifest"], *, asked: str) -> Finding:
    """What an answer to the warm-up rows says about a released model.

    Args:
        manifests: of the versions that may answer, by name.
        asked: the version whose warm-up rows were sent.
    """
    from services.common.model_answers import is_as_recorded

    problem = str(received.document.get("type", "")).rpartition(":")[2].rpartition("/")[2]
    match received.status:
        case 200:
            pass
        case 404 if problem == "model_not_found":
            return Finding("wrong", "Inference does not serve the model.")
        case 422:
            return Finding("wrong", "Inference refuses the model's own warm-up rows.")
        case 500 if problem:
            return Finding("wrong", "Inference fails on the model's own warm-up rows.")
        case 402:
            return Finding("unknown", "The checking account has no plan or no credit.")
        case status:
            return Finding("unknown", f"Inference answered {status}.")
    manifest = manifests.get(received.version or "")
    if manifest is None:
        return Finding("wrong", f"Version {received.version} answered, which is not released.")
    if manifest.version != asked:
        return Finding("unknown", "Another released version answered than the one before.")
    recorded = manifest.warm_up
    predictions = received.document.get("predictions")
    probabilities = received.document.get("probabilities")
    if not isinstance(predictions, list):
        return Finding("unknown", "The answer has no predictions.")
    if recorded.rows and not is_as_recorded(recorded, predictions, probabilities):
        return Finding("wrong", f"Version {manifest.version} does not answer as recorded.")
    return Finding("good", f"Version {manifest.version} answers as recorded.")


def check_model(
    model: str,
    manifests: Mapping[str, "Manifest"],
    *,
    url: str,
    auth_url: str,
    settings: "LocalSettings",
    within_s: float,
) -> Finding:
    """Predict until the outcome is clear or the time is over.

    Args:
        manifests: of the versions that may answer, by name; the live one is the first.
        url: of inference, as callers reach it.
    """
    import httpx

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
    """A wrong answer that was seen once, with no time left for another."""
    return Finding("unknown", f"{finding.detail} It was seen only once.")


def _predict(http: "httpx.Client", url: str, asked: "Manifest", *, token: str) -> Received:
    """What inference answers to the warm-up rows of a version.

    Raises:
        NoAnswer: nothing answers there.
    """
    import httpx

    signature = asked.signature
    body: dict[str, Any] = {"instances": asked.warm_up.rows or [[None] * len(signature.columns)]}
    if signature.task == "classification":
        body["parameters"] = {"probabilities": True}
    try:
        answer = http.post(
            f"{url.rstrip('/')}/v1/models/{asked.model}:predict",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"Inference is unavailable: {type(error).__name__}.") from error
    try:
        document = answer.json()
    except ValueError:
        document = {}
    return Received(
        answer.status_code,
        answer.headers.get("X-Model-Version"),
        document if isinstance(document, dict) else {},
    )
