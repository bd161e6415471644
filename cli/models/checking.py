"""`tollgate models check`: compare a released model's predictions with those of training."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.models.decisions import withdraw_bad
from cli.options import AsJson, HelmRelease, Namespace, Withdraw
from cli.output import print_error
from cli.serving.cluster import ClusterError, run_check
from cli.serving.smoke import Finding, check_model
from cli.settings import LocalSettings
from cli.stores import failures_as_one_line, load_settings, open_store

if TYPE_CHECKING:
    from registry.records import Manifest


def check(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="One model; default: every live model.")
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Which release; default: the live one.", min=1),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Public URL of inference; default: this machine.")
    ] = None,
    auth_url: Annotated[
        str | None, typer.Option(help="URL of auth; default: this machine.")
    ] = None,
    helm_release: HelmRelease = None,
    namespace: Namespace = "default",
    within: Annotated[float, typer.Option(help="Seconds to try each model.", min=0)] = 120.0,
    withdraw: Withdraw = False,
    tolerant: Annotated[
        bool, typer.Option("--tolerant", help="Exit with 0 if a model could not be checked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict a released model's warm-up rows, and compare with the recorded predictions.

    The command predicts as a machine client (TOLLGATE_CLIENT_ID), through --url or from inside the
    cluster. It judges only the model: if auth, billing or anything else prevents a response, the
    command fails and withdraws nothing.
    """
    if release is not None and model is None:
        raise typer.BadParameter("--release needs a MODEL")
    failed = False
    for name in [model] if model else _list_live():
        number, finding = _check_one(
            name, release, url, auth_url, helm_release, namespace, within_s=within
        )
        is_wrong = finding.verdict == "wrong"
        withdrawn = is_wrong and withdraw and withdraw_bad(name, number, finding.detail)
        if as_json:
            document = {"model": name, "release": number, **asdict(finding)}
            typer.echo(json.dumps(document | {"withdrawn": withdrawn}))
        _print_finding(name, number, finding, as_json=as_json)
        failed |= is_wrong or (finding.verdict == "unknown" and not tolerant)
    if failed:
        raise typer.Exit(1)


def _check_one(
    model: str,
    release: int | None,
    url: str | None,
    auth_url: str | None,
    helm_release: str | None,
    namespace: str,
    *,
    within_s: float,
) -> tuple[int, Finding]:
    """Check one model; return its release number and the finding."""
    with failures_as_one_line():
        number, manifests = _find_released(model, release)
    if not manifests:
        return number, Finding("good", f"Release {number} has no version or is no longer current.")
    if helm_release and not url:
        finding = _check_inside(model, number, helm_release, namespace, within_s)
    else:
        local = LocalSettings.load()
        finding = check_model(
            model,
            manifests,
            url=url or f"http://127.0.0.1:{local.inference_port}",
            auth_url=auth_url or f"http://127.0.0.1:{local.auth_port}",
            settings=local,
            within_s=within_s,
        )
    with failures_as_one_line():
        if finding.verdict == "wrong" and not _find_released(model, number)[1]:
            finding = Finding("good", "A newer release replaced it in the meantime.")
    return number, finding


def _check_inside(
    model: str, release: int, helm_release: str, namespace: str, within_s: float
) -> Finding:
    """Run `check` in the cluster and return its finding."""
    arguments = ["models", "check", model, "--release", str(release), "--json"]
    arguments += ["--url", "$(TOLLGATE_INFERENCE_URL)", "--auth-url", "$(TOLLGATE_AUTH_URL)"]
    arguments += ["--within", f"{within_s:g}"]
    try:
        document = run_check(
            arguments, helm_release=helm_release, namespace=namespace, within_s=within_s
        )
    except ClusterError as error:
        return Finding("unknown", f"The cluster check could not run: {error}.")
    verdict, detail = document.get("verdict"), str(document.get("detail"))
    if verdict == "good" or verdict == "wrong":
        return Finding(verdict, detail)
    return Finding("unknown", detail)


def _list_live() -> list[str]:
    """Return the models that have a live version."""
    with failures_as_one_line():
        store, trusted = open_store(read_only=True)
        pickles = load_settings().allow_joblib
        return [
            name
            for name in store.list_models()
            if store.live_release(name, trusted, allow_joblib=pickles)
        ]


def _find_released(model: str, number: int | None) -> tuple[int, dict[str, "Manifest"]]:
    """Return a release number and the manifests of the versions it serves, the live one first.

    Returns:
        No manifests if the release is not the current one, or has no live version.

    Raises:
        NoVersion: no version is live, and no release was given.
    """
    from registry.records import Withdrawal
    from registry.releases import NoVersion

    store, trusted = open_store(read_only=True)
    record = store.live_record(model, trusted, allow_joblib=load_settings().allow_joblib)
    if record is None or (number is not None and record.number != number):
        if number is None:
            raise NoVersion(f"Model '{model}' has no live version.")
        return number, {}
    if isinstance(record, Withdrawal):
        return record.number, {}
    versions = [record.version, *([record.canary.version] if record.canary else [])]
    return record.number, {each: store.open_version(model, each, trusted) for each in versions}


def _print_finding(model: str, number: int, finding: Finding, *, as_json: bool) -> None:
    if finding.verdict == "wrong":
        print_error(f"release {number} of {model} is bad: {finding.detail}")
    elif finding.verdict == "unknown":
        print_error(
            f"could not check release {number} of {model}; nothing was withdrawn: {finding.detail}"
        )
    elif not as_json:
        typer.echo(f"{model}: {finding.detail}")
