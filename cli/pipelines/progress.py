"""Work out how far each drop of data has come, from the records along the pipeline.

This module has no I/O: the command reads the records and prints the result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from cli.output import counted
from registry.data_names import SUPPORTED
from registry.records import Release, RunRecord, Withdrawal

STAGES = ("seen", "dispatched", "trained", "gated", "released", "served")
Stage = Literal["seen", "dispatched", "trained", "gated", "released", "served"]
QUIET = timedelta(minutes=5)
"""A drop ends after a quiet minute; events get a few more minutes to dispatch it."""
REDELIVERY = timedelta(hours=24)
"""How long the platform redelivers an event whose function fails."""
SWEPT = timedelta(days=7)
"""How long a sweep looks back for a drop: the default of the functions' setting."""
TRAINING = timedelta(hours=6)
"""The maximum run time of a workflow job."""
NAMED = 5
"""How many processes a reason names."""


@dataclass(frozen=True)
class DropRecords:
    """The records of a drop.

    Args:
        drop: `<bucket>/<name>#<generation>`, which is also the idempotency key of its training run.
        seen: when the drop was claimed, or when its newest object was written.
        dispatched: when GitHub accepted the dispatch.
        dead: why the drop was given up.
        is_misnamed: whether the name prevents a dispatch.
        part_of: a later, dispatched drop whose training also reads this data.
    """

    drop: str
    seen: datetime | None
    dispatched: datetime | None = None
    dead: str | None = None
    is_misnamed: bool = False
    part_of: str | None = None


@dataclass(frozen=True)
class Step:
    """A stage that a drop has reached."""

    stage: Stage
    time: datetime | None
    detail: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a drop has come.

    Args:
        steps: the stages it has reached, in order.
        waits: why it has not reached the next stage; None after the last one.
        is_stopped: whether it will not continue by itself.
    """

    drop: str
    steps: list[Step] = field(default_factory=list)
    waits: str | None = None
    is_stopped: bool = False


@dataclass(frozen=True)
class Known:
    """The state of a model against which its drops are judged.

    Args:
        runs: outcomes of training runs, by idempotency key.
        releases: by number.
        served: the number of the release that each process serves; None if not queried.
        report_link: template of the link to a version's report, with `{version}`.
        runs_link: link to the workflow runs; None if the repository is not known.
        is_pinned: whether a pin blocks automatic releases now.
    """

    model: str
    now: datetime
    runs: Mapping[str, RunRecord]
    releases: Mapping[int, Release | Withdrawal]
    served: Mapping[str, int | None] | None
    report_link: str
    runs_link: str | None
    is_pinned: bool = False


def judge_drop(records: DropRecords, known: Known) -> Progress:
    """Work out how far a drop has come, and what it waits for."""
    steps = [Step("seen", records.seen, link=_object_link(records.drop))]
    run = known.runs.get(records.drop)
    if records.dispatched is not None:
        detail = f"train.yml: data-arrived {records.drop}"
        steps.append(Step("dispatched", records.dispatched, detail, known.runs_link))
    if run is None:
        waits, is_stopped = _why_not_trained(records, known)
        return Progress(records.drop, steps, waits, is_stopped)
    return judge_run(run, known, drop=records.drop, steps=steps)


def judge_run(run: RunRecord, known: Known, *, drop: str, steps: Sequence[Step] = ()) -> Progress:
    """Return how far a training run has got, given the stages before it."""
    link = known.report_link.format(version=run.version)
    done = [*steps, Step("trained", run.time, f"version {run.version}", link)]
    if run.gate is not None:
        done.append(Step("gated", run.time, run.gate))
    if run.gate == "failed":
        return Progress(drop, done, "The gate failed; see the report.", is_stopped=True)
    record = known.releases.get(run.release) if run.release is not None else None
    if record is None:
        record = _release_of(run.version, known.releases)
    if record is None:
        held_back = run.pinned
        if held_back and not known.is_pinned:
            release = f"tollgate models release {known.model} --to {run.version}"
            held_back = f"A pin held it back, which has ended. To release it: {release}"
        why = held_back or run.refused or "The version was published without a release."
        return Progress(drop, done, why, is_stopped=True)
    done.append(Step("released", record.time, f"release {record.number} by {record.by}"))
    return _judge_served(drop, done, record.number, known)


def _judge_served(drop: str, done: list[Step], number: int, known: Known) -> Progress:
    in_force = max(known.releases, default=0)
    if in_force > number and known.releases[in_force].version != known.releases[number].version:
        newer = known.releases[in_force]
        detail = f"replaced by release {in_force} ({newer.action})"
        return Progress(drop, [*done, Step("served", newer.time, detail)])
    if known.served is None:
        return Progress(drop, done, "Serving was not checked; use --url or --helm-release.")
    if not known.served:
        return Progress(drop, done, "No process could be queried.")
    behind = [name for name, found in known.served.items() if found is not None and found < number]
    if behind:
        return Progress(drop, done, f"Not served yet by {_list(behind)}.")
    silent = [name for name, found in known.served.items() if found is None]
    if silent:
        return Progress(drop, done, f"Could not query {_list(silent)}.")
    by = counted(len(known.served), "process", "processes")
    return Progress(drop, [*done, Step("served", known.now, f"by {by}")])


def _list(processes: Sequence[str]) -> str:
    """Name a few processes, and how many more there are."""
    more = f" and {len(processes) - NAMED} more" if len(processes) > NAMED else ""
    return ", ".join(sorted(processes)[:NAMED]) + more


def _why_not_trained(records: DropRecords, known: Known) -> tuple[str, bool]:
    """Return why a drop has no training outcome, and whether that is final."""
    if records.is_misnamed:
        return f"Its name is unsupported ({SUPPORTED}); rename it.", True
    if records.part_of is not None:
        return f"Its data is part of the later drop {records.part_of}.", True
    if records.dead is not None:
        return f"Given up: {records.dead} Run train.yml manually.", True
    if records.dispatched is not None:
        if known.now - records.dispatched > TRAINING:
            return "train.yml recorded no outcome, so its run failed; see its log.", True
        return "train.yml has recorded no outcome yet.", False
    age = known.now - records.seen if records.seen else timedelta.max
    if age < QUIET:
        return "The drop is still open: it ends after a quiet minute, or with _SUCCESS.", False
    if age < REDELIVERY:
        return (
            "Not dispatched yet; its event is redelivered. To dispatch now: "
            "tollgate pipelines sweep",
            False,
        )
    if age < SWEPT:
        return "No event dispatched it; run: tollgate pipelines sweep", True
    return "No event dispatched it, and it is too old for a sweep. Run train.yml by hand.", True


def find_later_drops(drops: Iterable[DropRecords]) -> list[DropRecords]:
    """The same drops; one that was not dispatched names a later one that was.

    A training reads the whole folder, so it also reads what an earlier, unfinished drop left there.
    """
    drops = list(drops)
    dispatched = sorted((each.seen, each.drop) for each in drops if each.seen and each.dispatched)
    found = []
    for drop in drops:
        if drop.dispatched is None and drop.seen is not None:
            later = (name for seen, name in dispatched if seen > drop.seen)
            drop = replace(drop, part_of=next(later, None))
        found.append(drop)
    return found


def _release_of(
    version: str, releases: Mapping[int, Release | Withdrawal]
) -> Release | Withdrawal | None:
    """Return the first record that put a version live."""
    for number in sorted(releases):
        if releases[number].version == version:
            return releases[number]
    return None


def _object_link(drop: str) -> str | None:
    path, _, generation = drop.rpartition("#")
    return f"gs://{path}#{generation}" if path and not path.startswith("/") else None
