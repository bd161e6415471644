"""`tollgate models wait` and `withdraw`: what a deployment does about a release."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.models import AsJson, Model, Reason, models
from cli.train import failures_as_one_line

if TYPE_CHECKING:
    from services.common.model_store import ModelStore, TrustedKeys

LOOK_S = 1.0
ASK_TIMEOUT_S = 10.0
METRIC = "model_live_release"

Number = Annotated[int, typer.Option("--release", metavar="NUMBER", help="Which release.", min=1)]
Served = dict[str, int | None]
"""By process: the number of the release it serves, None if it does not say."""


@models.command()
def wait(
    model: Model,
    release: Number,
    urls: Annotated[
        list[str] | None, typer.Option("--url", help="An inference process; may be repeated.")
    ] = None,
    pods: Annotated[
        str | None, typer.Option(metavar="SELECTOR", help="Ask these pods, through kubectl.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Where the pods are.")] = "default",
    port: Annotated[int, typer.Option(help="Of inference, in the pods.")] = 8002,
    within: Annotated[float, typer.Option(help="Seconds to wait.", min=0)] = 300.0,
) -> None:
    """Verify a release, then wait until every process serves it (or a later one)."""
    if bool(urls) == bool(pods):
        raise typer.BadParameter("name the processes: either --url or --pods")
    with failures_as_one_line():
        _verify(*_open_store(), model, release)

    def ask() -> Served:
        if pods:
            return _ask_pods(model, selector=pods, namespace=namespace, port=port)
        return {url: _live_release(model, scrape(url)) for url in urls or []}

    served = _wait_for(ask, release=release, within_s=within)
    behind = {name: number for name, number in served.items() if (number or 0) < release}
    for name, number in behind.items():
        state = "does not say what it serves" if number is None else f"serves release {number}"
        typer.echo(f"error: {name} {state}", err=True)
    if behind or not served:
        typer.echo(f"error: release {release} of {model} is not everywhere", err=True)
        raise typer.Exit(1)
    typer.echo(f"{model}: {len(served)} serve release {release} or a later one")


@models.command()
def withdraw(model: Model, release: Number, reason: Reason = "", as_json: AsJson = False) -> None:
    """Roll a release back, unless another one has been made since: then do nothing."""
    with failures_as_one_line():
        from services.common.model_releases import Promoter
        from trainer.settings import TrainerSettings

        store, trusted = _open_store()
        promoter = Promoter(store=store, trusted=trusted, by=TrainerSettings.load().actor)
        decision = promoter.roll_back(model, judged=release, reason=reason)
    live = decision.live
    if as_json:
        told = {"written": decision.written, "live": live.model_dump(mode="json")}
        typer.echo(json.dumps({"model": model, **told}))
    elif decision.written:
        typer.echo(f"{model}: version {live.version} is live, release {live.number}")
    else:
        typer.echo(f"{model}: nothing to withdraw, release {live.number} is live")


def _wait_for(ask: Callable[[], Served], *, release: int, within_s: float) -> Served:
    """What is served once all of it is the release or a later one, or when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        served = ask()
        done = bool(served) and all((number or 0) >= release for number in served.values())
        if done or time.monotonic() >= deadline:
            return served
        time.sleep(LOOK_S)


def _open_store() -> tuple["ModelStore", "TrustedKeys"]:
    from services.common.model_store import ModelStore
    from trainer.settings import TrainerSettings

    settings = TrainerSettings.load()
    return ModelStore(settings.model_store_url), settings.load_trusted_keys()


def _verify(store: "ModelStore", trusted: "TrustedKeys", model: str, number: int) -> None:
    """Check a release, its version, and every file of that.

    Raises:
        VersionNotFound, VersionRefused: it is not there, or does not hold.
    """
    from services.common.model_store import VersionNotFound

    record = store.find_release(model, number)
    if record is None:
        raise VersionNotFound(f"There is no release {number} of {model}.")
    manifest = store.open_release(model, record, trusted)
    for name in manifest.files:
        store.read_file(manifest, name)


def _ask_pods(model: str, *, selector: str, namespace: str, port: int) -> Served:
    """What the pods of a selector serve, but for those that are leaving.

    Through the API server's proxy, so that neither a tunnel nor a route to the pods is needed.
    """
    listed = _kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    if listed is None:
        return {}
    names = [
        pod["metadata"]["name"]
        for pod in json.loads(listed)["items"]
        if "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    path = f"/api/v1/namespaces/{namespace}/pods/{{}}:{port}/proxy/metrics"
    return {
        name: _live_release(model, _kubectl("get", "--raw", path.format(name))) for name in names
    }


def _kubectl(*arguments: str) -> str | None:
    """What kubectl prints; None, and its own words on stderr, if it fails."""
    try:
        ran = subprocess.run(  # noqa: S603 — an argument list, no shell
            ["kubectl", f"--request-timeout={ASK_TIMEOUT_S:.0f}s", *arguments],  # noqa: S607
            stdout=subprocess.PIPE,
            text=True,
            timeout=2 * ASK_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        typer.echo(f"kubectl: {type(error).__name__}", err=True)
        return None
    return ran.stdout if ran.returncode == 0 else None


def scrape(url: str) -> str | None:
    """A process's metrics as text, None if it does not give them."""
    import httpx

    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/metrics", timeout=ASK_TIMEOUT_S, trust_env=False
        ).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return answer.text


def _live_release(model: str, metrics: str | None) -> int | None:
    """The release of a model that metrics tell of; 0 if the process serves none.

    None if they are no metrics: a proxy's page, say, or an answer that broke off.
    """
    if metrics is None:
        return None
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [
            int(sample.value)
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == METRIC and sample.labels.get("model") == model
        ]
    except (ValueError, OverflowError):
        return None
    return max(samples, default=0)
