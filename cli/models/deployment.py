"""`tollgate models wait` and `withdraw`: wait until a release is served, or roll it back.

Only evidence counts against a release: a process that serves an older one, or pods that have all
been crashing since the release. A process that cannot be reached is no evidence.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from cli.models.decisions import find_pin_in_force, print_decision, withdraw_bad
from cli.options import AsJson, HelmRelease, Model, Namespace, Reason, Urls, Withdraw
from cli.output import counted, print_error
from cli.serving.cluster import (
    ClusterError,
    ask_pods,
    find_crashing,
    run_check,
    select_inference,
)
from cli.serving.processes import Served, Verdict, ask_addresses, ask_urls, judge
from cli.stores import failures_as_one_line, open_release_manager, open_store

POLL_S = 1.0

Number = Annotated[
    int, typer.Option("--release", metavar="NUMBER", help="The release number.", min=1)
]


def wait(
    model: Model,
    release: Number,
    urls: Urls = None,
    address: Annotated[
        str | None,
        typer.Option("--resolve", metavar="URL", help="Query every address of its host name."),
    ] = None,
    helm_release: HelmRelease = None,
    pods: Annotated[
        str | None, typer.Option(metavar="SELECTOR", help="Query these pods through kubectl.")
    ] = None,
    namespace: Namespace = "default",
    port: Annotated[int, typer.Option(help="Port of inference in the pods.")] = 8002,
    within: Annotated[float, typer.Option(help="Seconds to wait.", min=0)] = 300.0,
    withdraw: Withdraw = False,
    as_json: AsJson = False,
) -> None:
    """Verify a release, then wait until every process serves it or a later one.

    The release is bad if a process still serves an older one at the end, or if all pods have been
    crashing since the release. If processes cannot be queried for another reason, the command fails
    without a verdict.
    """
    if sum(map(bool, (urls, address, helm_release, pods))) != 1:
        raise typer.BadParameter(
            "name the processes: one of --url, --resolve, --helm-release or --pods"
        )
    with failures_as_one_line():
        released = _verify(model, release)

    if helm_release:
        served = _wait_inside(model, release, helm_release, namespace, within)
    else:

        def ask() -> Served:
            if pods:
                return ask_pods(model, selector=pods, namespace=namespace, port=port)
            return ask_addresses(model, address) if address else ask_urls(model, urls or [])

        served = _wait_for(ask, release=release, within_s=within)
    verdict, reason = judge(served, release), "a process serves an older release"
    selector = select_inference(helm_release) if helm_release else pods
    if verdict == "unknown" and (crashing := _find_crashing(selector, namespace, released)):
        served, verdict = dict.fromkeys(crashing, 0), "behind"
        reason = "every pod has been crashing since the release"
    withdrawn = verdict == "behind" and withdraw and withdraw_bad(model, release, reason)
    _print_served(model, release, served, verdict, reason=reason, as_json=as_json)
    if as_json:  # last, because `run_check` reads only the end of the log
        document: dict[str, Any] = {"model": model, "release": release, "verdict": verdict}
        typer.echo(json.dumps({**document, "served": dict(served), "withdrawn": withdrawn}))
    if verdict != "served":
        raise typer.Exit(1)


def withdraw_release(
    model: Model, release: Number, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Roll a release back, unless a newer one has replaced it.

    If there is no earlier version to roll back to, no version is live afterwards.
    """
    with failures_as_one_line():
        release_manager = open_release_manager()
        decision = release_manager.roll_back(model, expected_release=release, reason=reason)
    record = decision.live
    if as_json:
        document = {"written": decision.written, "live": record.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **document}))
    elif not decision.written:
        live = f"release {record.number} is live"
        if record.version is None:
            live = f"release {record.number} has no live version"
        typer.echo(f"{model}: nothing to withdraw; {live}")
    else:
        pin = find_pin_in_force(release_manager, model)
        print_decision(model, decision, pin=pin, as_json=False)


def _wait_inside(
    model: str, release: int, helm_release: str, namespace: str, within_s: float
) -> Served:
    """Run `wait` in the cluster and return the releases that its pods serve."""
    arguments = ["models", "wait", model, "--release", str(release), "--json"]
    arguments += ["--resolve", "$(TOLLGATE_INFERENCE_PODS)", "--within", f"{within_s:g}"]
    try:
        document = run_check(
            arguments, helm_release=helm_release, namespace=namespace, within_s=within_s
        )
        served = document["served"]
        return {
            str(name): None if number is None else int(number) for name, number in served.items()
        }
    except ClusterError as error:
        print_error(str(error))
    except (AttributeError, KeyError, TypeError, ValueError):
        print_error("the check in the cluster printed no outcome")
    return {}


def _wait_for(ask: Callable[[], Served], *, release: int, within_s: float) -> Served:
    """Return the served releases once all are current, or when the time is up."""
    deadline = time.monotonic() + within_s
    while True:
        served, failure = _ask_once(ask)
        if judge(served, release) == "served" or time.monotonic() >= deadline:
            if failure:
                print_error(failure)
            return served
        time.sleep(POLL_S)


def _ask_once(ask: Callable[[], Served]) -> tuple[Served, str | None]:
    """Return the served releases, or none and the reason."""
    try:
        return ask(), None
    except ClusterError as error:
        return {}, str(error)


def _print_served(
    model: str, release: int, served: Served, verdict: Verdict, *, reason: str, as_json: bool
) -> None:
    if verdict == "served":
        if not as_json:
            processes = counted(len(served), "process", "processes")
            typer.echo(f"{model}: release {release} or later is served by {processes}")
        return
    for name, number in served.items():
        if number is None:
            print_error(f"{name} does not report which release it serves")
        elif number < release:
            print_error(f"{name} serves {f'release {number}' if number else 'no release'}")
    if verdict == "behind":
        print_error(f"release {release} of {model} is not served by every process: {reason}")
    else:
        print_error(
            f"could not find out which release of {model} is served; "
            f"nothing was withdrawn for release {release}"
        )


def _find_crashing(selector: str | None, namespace: str, released: datetime) -> list[str]:
    """Return the pods if all have been crashing since the release; none if that is not known."""
    if selector is None:
        return []
    try:
        return find_crashing(selector=selector, namespace=namespace, since=released)
    except ClusterError as error:
        print_error(str(error))
        return []


def _verify(model: str, number: int) -> datetime:
    """Verify a release, its version, and every file of the version; return when it was released.

    Raises:
        VersionNotFound, VersionRefused: the release does not exist or cannot be verified.
    """
    from registry.records import VersionNotFound, VersionRefused, Withdrawal

    store, trusted = open_store(read_only=True)
    record = store.find_record(model, number)
    if record is None:
        raise VersionNotFound(f"Release {number} of {model} not found.")
    if number not in store.list_releases(model):
        raise VersionRefused(
            f"Release {number} of '{model}' is far beyond the sequence and is ignored.",
            reason="sequence",
        )
    if not isinstance(record, Withdrawal):
        manifest = store.open_release(model, record, trusted)
        for name in manifest.files:
            store.read_file(manifest, name)
    return record.time
