"""Find lost drops: those whose events were lost, or arrived during an outage.

It runs on a schedule in the function, or with `tollgate pipelines sweep`. Sweeps use the same
claims and records as events, so they can run at any time and in parallel.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from random import SystemRandom

from functions.common.events import Arrival, Ignored
from functions.common.faults import Unfinished
from functions.common.github import RateLimited
from functions.common.log import Severity, log, places
from functions.common.pipeline import Pipeline, age_s
from functions.on_data_arrival.drops import Skip, Wait, decide
from functions.on_data_arrival.handler import dispatch_drop, find_folder_drop, name_drop
from registry.data_names import kind_of
from registry.records import is_model_name

SEVERITIES: dict[str, Severity] = {
    "blocked": "ERROR",
    "failed": "ERROR",
    "given_up_before": "WARNING",
    "retried": "WARNING",
    "unsupported_name": "WARNING",
}
"""Severities of the decisions that get their own log line."""
UNFINISHED = ("blocked", "failed", "retried")


@dataclass(frozen=True)
class Swept:
    """A sweep's decision about one model.

    Args:
        drop: `<bucket>/<name>#<generation>` of the object that ends the drop, or None.
        decision: `dispatched`, `waiting`, `idle`, `dispatched_before`, `given_up_before`,
            `replaced`, `unsupported_name`; or `retried`, `blocked`, `failed` as for an event.
        reason: a sentence.
    """

    model: str
    drop: str | None
    decision: str
    reason: str


def run_sweep(pipeline: Pipeline) -> bool:
    """Sweep all models and log each that needs attention; return whether all succeeded.

    Raises:
        Unfinished: the models cannot be listed.
    """
    swept = sweep(pipeline)
    for each in swept:
        if severity := SEVERITIES.get(each.decision):
            fields = {"decision": each.decision, "model": each.model, "drop": each.drop or ""}
            log(severity, f"Swept: {each.reason}", **fields)
    dispatched = sum(each.decision == "dispatched" for each in swept)
    log("INFO", f"Models swept: {len(swept)}; drops dispatched: {dispatched}.", decision="swept")
    return not any(each.decision in UNFINISHED for each in swept)


def sweep(pipeline: Pipeline) -> list[Swept]:
    """Dispatch every complete drop that was not dispatched; return the decision for each model.

    Raises:
        Unfinished: the models cannot be listed.
    """
    watched = pipeline.settings.watched
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    swept: list[Swept] = []
    folders = pipeline.storage.list_folders(watched.bucket, watched.prefix)
    # In random order, so that no model is always last and runs out of time.
    SystemRandom().shuffle(folders)
    for folder in folders:
        model = folder.removeprefix(watched.prefix).rstrip("/")
        if not is_model_name(model):
            continue
        if time.monotonic() > deadline:
            reason = "The time limit of one delivery has passed; the next sweep continues."
            swept.append(Swept(model, None, "retried", reason))
            break
        try:
            swept.append(_sweep_model(model, folder, pipeline, deadline=deadline))
        except Unfinished as error:
            decision = "blocked" if error.fix else "retried"
            swept.append(Swept(model, None, decision, str(error)))
            if isinstance(error, RateLimited):
                break
        except Exception as error:  # one model must not keep the others from being swept
            reason = f"{type(error).__name__} at {places(error)}"
            swept.append(Swept(model, None, "failed", reason))
    return swept


def _sweep_model(model: str, folder: str, pipeline: Pipeline, *, deadline: float) -> Swept:
    settings = pipeline.settings
    in_folder = Arrival(settings.watched.bucket, folder, "", model, "")
    drop, covered = find_folder_drop(in_folder, pipeline)
    decision = decide(
        drop,
        arrived=None,
        covered=covered,
        now=datetime.now(UTC),
        quiet_s=settings.quiet_seconds,
        sweeping=True,
    )
    if drop is None or not drop.has_data:
        misnamed = _find_misnamed(in_folder, pipeline)
        if misnamed is not None:
            return misnamed
    if drop is None or isinstance(decision, Skip):
        reason = decision.reason if isinstance(decision, Skip) else ""
        return Swept(model, None, "idle", reason)
    arrival = name_drop(in_folder, drop.newest)
    if age_s(drop.newest) > settings.sweep_max_age_seconds:
        return Swept(model, arrival.identity, "idle", "The drop is too old to be swept.")
    if isinstance(decision, Wait):
        return Swept(model, arrival.identity, "waiting", "The drop has not ended.")
    try:
        dispatch_drop(arrival, drop.newest, pipeline, deadline=deadline, gives_up=False)
    except Ignored as ignored:
        return Swept(model, arrival.identity, ignored.decision, str(ignored))
    return Swept(
        model, arrival.identity, "dispatched", "The drop was lost; no event dispatched it."
    )


def _find_misnamed(in_folder: Arrival, pipeline: Pipeline) -> Swept | None:
    """Return the decision about data that cannot be dispatched because of its name, or None."""
    for stored in pipeline.storage.list_folder(in_folder.bucket, in_folder.folder):
        if kind_of(stored.name.removeprefix(in_folder.folder)) == "unsupported":
            if age_s(stored) > pipeline.settings.sweep_max_age_seconds:
                continue
            identity = f"{in_folder.bucket}/{stored.name}#{stored.generation}"
            reason = "All data has unsupported names; rename it."
            return Swept(in_folder.model, identity, "unsupported_name", reason)
    return None
