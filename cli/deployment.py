"""`tollgate models wait` and `withdraw`: whether a release is served, and what to do if not.

Only what was seen counts against a release: "asked, and it serves another one" may withdraw it,
"could not ask" never does.
"""

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cli.cluster import NotAsked, ask_pods, run_check
from cli.models_app import (
    AsJson,
    HelmRelease,
    Model,
    Namespace,
    Reason,
    Withdraw,
    find_pin_in_force,
    models,
    open_promoter,
    open_store,
    print_decision,
    withdraw_bad,
)
from cli.serving import Served, Verdict, ask_addresses, ask_urls, judge
from cli.train import failures_as_one_line

LOOK_S = 1.0

Number = Annotated[int, typer.Option("--release", metavar="NUMBER", help="Which release.", min=1)]


@models.command()
def wait(
    model: Model,
    release: Number,
    urls: Annotated[
        list[str] | None, typer.Option("--url", help="An inference process; may be repeated.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--resolve", metavar="URL", help="Ask every address that its host name has."),
    ] = None,
    helm_release: HelmRelease = None,
    pods: Annotated[
        str | None, typer.Option(metavar="SELECTOR", help="Ask these pods, through kubectl.")
    ] = None,
    namespace: Namespace = "default",
    port: Annotated[int, typer.Option(help="Of inference, in the pods.")] = 8002,
    within: Annotated[float, typer.Option(help="Seconds to wait.", min=0)] = 300.0,
    withdraw: Withdraw = False,
    as_json: AsJson = False,
) -> None:
    """Verify a release, then wait until every process serves it (or a later one).

    If one of them serves another release at the end, the release is bad. If they could not be
    asked, the command fails without a judgement.
    """
    if sum(map(bool, (urls, address, helm_release, pods))) != 1:
        raise typer.BadParameter(
            "name the processes: one of --url, --resolve, --helm-release or --pods"
        )
    with failures_as_one_line():
        _verify(model, release)

    if helm_release:
        served = _wait_inside(model, release, helm_release, namespace, within)
    else:

        def ask() -> Served:
            if pods:
                return ask_pods(model, selector=pods, namespace=namespace, port=port)
            return ask_addresses(model, address) if address else ask_urls(model, urls or [])

        served = _wait_for(ask, release=release, within_s=within)
    verdict = judge(served, release)
    reason = "a process serves another release"
    withdrawn = verdict == "behind" and withdraw and withdraw_bad(model, release, reason)
    _print_served(model, release, served, verdict, as_json=as_json)
    if as_json:  # last, as `run_check` reads only the end of a log
        told: dict[str, Any] = {"model": model, "release": release, "verdict": verdict}
        typer.echo(json.dumps({**told, "served": dict(served), "withdrawn": withdrawn}))
    if verdict != "served":
        raise typer.Exit(1)


@models.command("withdraw")
def withdraw_release(
    model: Model, release: Number, reason: Reason = "", as_json: AsJson = False
) -> None:
    """Roll a release back, unless another one has been made since: then do nothing.

    Where there is no earlier version to go back to, no version is live afterwards.
    """
    with failures_as_one_line():
        promoter = open_promoter()
        decision = promoter.roll_back(model, judged=release, reason=reason)
    record = decision.live
    if as_json:
        told = {"written": decision.written, "live": record.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **told}))
    elif not decision.written:
        live = f"release {record.number} is live"
        if record.version is None:
            live = f"no version is live by release {record.number}"
        typer.echo(f"{model}: nothing to withdraw, {live}")
    else:
        pin = find_pin_in_force(promoter, model)
        print_decision(model, decision, pin=pin, as_json=False)


def _wait_inside(
    model: str, release: int, helm_release: str, namespace: str, within_s: float
) -> Served:
    """What the pods serve at the end of a `wait` that runs in the cluster."""
    arguments = ["models", "wait", model, "--release", str(release), "--json"]
    arguments += ["--resolve", "$(TOLLGATE_INFERENCE_PODS)", "--within", f"{within_s:g}"]
    try:
        told = run_check(
            arguments, helm_release=helm_release, namespace=namespace, within_s=within_s
        )
        served = told["served"]
        return {
            str(name): None if number is None else int(number) for name, number in served.items()
        }
    except NotAsked as error:
        typer.echo(f"error: {error}", err=True)
    except (AttributeError, KeyError, TypeError, ValueError):
        typer.echo("error: the check in the cluster printed no outcome", err=True)
    return {}


def _wait_for(ask: Callable[[], Served], *, release: int, within_s: float) -> Served:
    """What is served once all of it is the release or a later one, or when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        served, fault = _ask_once(ask)
        if judge(served, release) == "served" or time.monotonic() >= deadline:
            if fault:
                typer.echo(f"error: {fault}", err=True)
            return served
        time.sleep(LOOK_S)


def _ask_once(ask: Callable[[], Served]) -> tuple[Served, str | None]:
    """What is served, or nothing and why nobody could be asked."""
    try:
        return ask(), None
    except NotAsked as error:
        return {}, str(error)


def _print_served(
    model: str, release: int, served: Served, verdict: Verdict, *, as_json: bool
) -> None:
    if verdict == "served":
        if not as_json:
            typer.echo(f"{model}: {len(served)} serve release {release} or a later one")
        return
    for name, number in served.items():
        if number is None:
            typer.echo(f"error: {name} does not say what it serves", err=True)
        elif number < release:
            typer.echo(f"error: {name} serves release {number}", err=True)
    if verdict == "behind":
        typer.echo(f"error: release {release} of {model} is not everywhere", err=True)
    else:
        typer.echo(
            f"error: could not ask which release of {model} is served; release {release} is not "
            "judged and nothing is withdrawn",
            err=True,
        )


def _verify(model: str, number: int) -> None:
    """Check a release, its version, and every file of that.

    Raises:
        VersionNotFound, VersionRefused: it is not there, or does not verify.
    """
    from services.common.model_store import VersionNotFound, VersionRefused, Withdrawal

    store, trusted = open_store(read_only=True)
    record = store.find_record(model, number)
    if record is None:
        raise VersionNotFound(f"There is no release {number} of {model}.")
    if number not in store.list_releases(model):
        raise VersionRefused(
            f"Release {number} of {model} is far beyond the sequence and is ignored.",
            reason="sequence",
        )
    if isinstance(record, Withdrawal):
        return
    manifest = store.open_release(model, record, trusted)
    for name in manifest.files:
        store.read_file(manifest, name)
