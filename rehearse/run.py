"""The rehearsal: train and serve a data drop, then roll back a broken release."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx

from harness.cloud import Cloud
from harness.gcs import Emulator
from harness.waiting import eventually
from registry.records import WarmUp
from rehearse.shop import MODEL, PREDICT, REQUEST, Shop, new_shop

Report = Callable[[str], None]
SETTINGS = {"target": "good", "estimators": ["linear"]}


class Failed(Exception):
    """The rehearsal failed."""


def rehearse(cloud: Cloud, emulator: Emulator, folder: Path, *, report: Report) -> None:
    """Rehearse the pipeline once, and report each step in a line.

    Raises:
        Failed, AssertionError: the rehearsal failed.
    """
    with new_shop(cloud, emulator, folder) as shop:
        cloud.put(f"{MODEL}/dataset.json", json.dumps(SETTINGS).encode())
        report("starting two buckets, two functions and three services")
        shop.open()
        token = shop.platform.new_token()

        first = _train(shop, "part-1", "part-2", report=report)
        _deploy(shop, 1, succeeds=True, report=report)
        _expect_served(shop, token, first, report=report)

        broken = _break_next(shop, report=report)
        _deploy(shop, 2, succeeds=False, report=report)
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
    record = shop.records()[-1]
    report(f"train.yml released version {record.version} as release {record.number}")
    return str(record.version)


def _deploy(shop: Shop, number: int, *, succeeds: bool, report: Report) -> None:
    """Deliver a release's event and run the workflow that this starts."""
    event = shop.deliver(f"{MODEL}/releases/{number:08d}.json")
    report(f"on_model_release dispatched model-released for release {number}")
    outcomes = shop.runner.run("deploy.yml", event=event)
    failed = [step for step, outcome in outcomes.items() if outcome == "failure"]
    if succeeds is bool(failed):
        raise Failed(f"deploy.yml, failed steps {failed}: {shop.runner.output}")
    report(
        f'deploy.yml failed in "{failed[0]}"' if failed else "deploy.yml passed: served and checked"
    )


def _break_next(shop: Shop, *, report: Report) -> str:
    """Release a signed version with wrong recorded predictions; return its name."""
    platform_store = shop.store
    signed = platform_store.store.open_release(
        MODEL, platform_store.live(MODEL), platform_store.trusted
    )
    wrong_predictions = [1 - int(each) for each in signed.warm_up.predictions]
    warm_up = WarmUp.model_validate({**dict(signed.warm_up), "predictions": wrong_predictions})
    version = platform_store.publish_copy(MODEL, warm_up=warm_up)
    released = shop.platform.run("models", "release", MODEL, "--to", version)
    if released.returncode:
        raise Failed(f"The broken version was not released: {released.stderr}")
    report(f"released version {version}, which is broken, as release 2")
    return version


def _expect_rolled_back(shop: Shop, *, from_version: str, to_version: str, report: Report) -> None:
    *_, broken, last = shop.records()
    if (broken.version, last.action, last.version) != (from_version, "rollback", to_version):
        raise Failed(f"Release {last.number} is a {last.action} of {last.version}.")
    report(f"release {last.number} is a rollback to version {last.version}: {last.reason}")


def _expect_served(shop: Shop, token: str, version: str, *, report: Report) -> None:
    """Predict as a caller until a version answers, and report the response."""
    with shop.platform.client("inference", token) as inference:

        def predict() -> httpx.Response | None:
            response = inference.post(PREDICT, json=REQUEST)
            return response if response.headers.get("X-Model-Version") == version else None

        response = eventually(predict, within_s=30)
    report(
        f"version {version} predicts {response.json()['predictions']}, "
        f"for {response.headers['X-Usage-Amount']}"
    )
