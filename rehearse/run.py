"""The rehearsal: train and serve a data drop, then roll back a broken release."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from harness.gcs import Emulator
from harness.platform import eventually
from registry.keys import TrustedKeys, load_signing_key
from registry.records import Manifest, WarmUp, new_version_name
from registry.store import ModelStore
from rehearse.shop import ASK, MODEL, PREDICT, Shop, new_shop
from tests.functions.conftest import World

Report = Callable[[str], None]
SETTINGS = {"target": "good", "estimators": ["linear"]}


class Failed(Exception):
    """The rehearsal failed."""


def rehearse(world: World, emulator: Emulator, folder: Path, *, report: Report) -> None:
    """Rehearse the pipeline once, and report each step in a line.

    Raises:
        Failed, AssertionError: the rehearsal failed.
    """
    with new_shop(world, emulator, folder) as shop:
        world.put(f"{MODEL}/dataset.json", json.dumps(SETTINGS).encode())
        report("starting two buckets, two functions and three services")
        shop.open()
        token = shop.platform.new_token()

        first = _train(shop, "part-1", "part-2", report=report)
        _deploy(shop, 1, good=True, report=report)
        _expect_served(shop, token, first, report=report)

        broken = _break_next(shop, report=report)
        _deploy(shop, 2, good=False, report=report)
        _expect_rolled_back(shop, from_version=broken, to_version=first, report=report)
        _expect_served(shop, token, first, report=report)


def _train(shop: Shop, *parts: str, report: Report) -> str:
    """Drop data and run the workflow that this starts; return the version that goes live."""
    report(f"dropping {', '.join(f'{part}.csv' for part in parts)} into the data bucket")
    event = shop.drop(*parts)
    report(f"on_data_arrival dispatched data-arrived for {event['client_payload']['name']}")
    outcomes = shop.runner.run("train.yml", event=event)
    if outcomes.get("Train on what arrived") != "success":
        raise Failed(f"train.yml failed: {shop.runner.output}")
    record = _records(shop)[-1]
    report(f"train.yml released version {record.version} as release {record.number}")
    return str(record.version)


def _deploy(shop: Shop, number: int, *, good: bool, report: Report) -> None:
    """Deliver a release's event and run the workflow that this starts."""
    event = shop.deliver(f"{MODEL}/releases/{number:08d}.json")
    report(f"on_model_release dispatched model-released for release {number}")
    outcomes = shop.runner.run("deploy.yml", event=event)
    failed = [step for step, outcome in outcomes.items() if outcome == "failure"]
    if good is bool(failed):
        raise Failed(f"deploy.yml, failed steps {failed}: {shop.runner.output}")
    report(
        f'deploy.yml failed in "{failed[0]}"' if failed else "deploy.yml passed: served and checked"
    )


def _break_next(shop: Shop, *, report: Report) -> str:
    """Release a signed version with wrong recorded predictions; return its name."""
    store, trusted = _open_store(shop)
    live = store.live_release(MODEL, trusted)
    if live is None:
        raise Failed("No version is live.")
    signed = store.open_release(MODEL, live, trusted)
    files = {name: store.read_file(signed, name) for name in signed.files}
    wrong = [1 - int(each) for each in signed.warm_up.predictions]
    warm_up = WarmUp.model_validate({**dict(signed.warm_up), "predictions": wrong})
    changes = {"version": new_version_name(signed.created_at), "warm_up": warm_up}
    manifest = Manifest.model_validate({**dict(signed), **changes})
    store.publish(manifest, files, load_signing_key(shop.home / "keys/signing.pem"))
    ran = shop.platform.run("models", "release", MODEL, "--to", manifest.version)
    if ran.returncode:
        raise Failed(f"The broken version was not released: {ran.stderr}")
    report(f"released version {manifest.version}, which is broken, as release 2")
    return manifest.version


def _expect_rolled_back(shop: Shop, *, from_version: str, to_version: str, report: Report) -> None:
    *_, broken, last = _records(shop)
    if (broken.version, last.action, last.version) != (from_version, "rollback", to_version):
        raise Failed(f"Release {last.number} is a {last.action} of {last.version}.")
    report(f"release {last.number} is a rollback to version {last.version}: {last.reason}")


def _expect_served(shop: Shop, token: str, version: str, *, report: Report) -> None:
    """Predict as a customer until a version responds, and report the response."""
    with shop.platform.client("inference", token) as inference:

        def ask() -> httpx.Response | None:
            answer = inference.post(PREDICT, json=ASK)
            return answer if answer.headers.get("X-Model-Version") == version else None

        answer = eventually(ask, within_s=30)
    report(
        f"version {version} predicts {answer.json()['predictions']}, "
        f"for {answer.headers['X-Usage-Amount']}"
    )


def _records(shop: Shop) -> list[Any]:
    return shop.records(_open_store(shop)[0])


def _open_store(shop: Shop) -> tuple[ModelStore, TrustedKeys]:
    return ModelStore(f"gs://{shop.models}"), TrustedKeys.load(shop.home / "keys/trusted")
