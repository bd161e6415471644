"""The rehearsal: data is dropped and served; the next release is broken, and rolled back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from rehearse.shop import ASK, MODEL, PREDICT, Shop, new_shop
from services.common.model_records import WarmUp
from services.common.model_store import (
    Manifest,
    ModelStore,
    TrustedKeys,
    load_signing_key,
    new_version_name,
)
from tests.e2e.platform import eventually
from tests.functions.conftest import World
from tests.gcs import Emulator

Say = Callable[[str], None]
SETTINGS = {"target": "good", "estimators": ["linear"]}


class Failed(Exception):
    """The loop did not do what it should."""


def rehearse(world: World, emulator: Emulator, folder: Path, *, say: Say) -> None:
    """Rehearse the loop once, with a line for each step.

    Raises:
        Failed, AssertionError: the loop did not do what it should.
    """
    with new_shop(world, emulator, folder) as shop:
        world.put(f"{MODEL}/dataset.json", json.dumps(SETTINGS).encode())
        say("starting two buckets, two functions and three services")
        shop.open()
        token = shop.platform.new_token()

        first = _train(shop, "part-1", "part-2", say=say)
        _deploy(shop, 1, good=True, say=say)
        _expect_served(shop, token, first, say=say)

        broken = _break_next(shop, say=say)
        _deploy(shop, 2, good=False, say=say)
        _expect_rolled_back(shop, from_version=broken, to_version=first, say=say)
        _expect_served(shop, token, first, say=say)


def _train(shop: Shop, *parts: str, say: Say) -> str:
    """Drop data, and run the workflow that this starts; the version that is live then."""
    say(f"dropping {', '.join(f'{part}.csv' for part in parts)} into the data bucket")
    event = shop.drop(*parts)
    say(f"on_data_arrival dispatched data-arrived for {event['client_payload']['name']}")
    outcomes = shop.runner.run("train.yml", event=event)
    if outcomes.get("Train on what arrived") != "success":
        raise Failed(f"train.yml failed: {shop.runner.said}")
    record = _records(shop)[-1]
    say(f"train.yml released version {record.version} as release {record.number}")
    return str(record.version)


def _deploy(shop: Shop, number: int, *, good: bool, say: Say) -> None:
    """Deliver the event of a release, and run the workflow that this starts."""
    event = shop.deliver(f"{MODEL}/releases/{number:08d}.json")
    say(f"on_model_release dispatched model-released for release {number}")
    outcomes = shop.runner.run("deploy.yml", event=event)
    failed = [step for step, outcome in outcomes.items() if outcome == "failure"]
    if good is bool(failed):
        raise Failed(f"deploy.yml, failed steps {failed}: {shop.runner.said}")
    say(
        f'deploy.yml failed in "{failed[0]}"' if failed else "deploy.yml passed: served and checked"
    )


def _break_next(shop: Shop, *, say: Say) -> str:
    """Release a signed version that does not answer as its manifest records; its name."""
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
    say(f"released version {manifest.version}, which is broken, as release 2")
    return manifest.version


def _expect_rolled_back(shop: Shop, *, from_version: str, to_version: str, say: Say) -> None:
    *_, broken, last = _records(shop)
    if (broken.version, last.action, last.version) != (from_version, "rollback", to_version):
        raise Failed(f"Release {last.number} is a {last.action} of {last.version}.")
    say(f"release {last.number} is a rollback to version {last.version}: {last.reason}")


def _expect_served(shop: Shop, token: str, version: str, *, say: Say) -> None:
    """Predict as a customer until a version answers, then look at the answer."""
    with shop.platform.client("inference", token) as inference:

        def ask() -> httpx.Response | None:
            answer = inference.post(PREDICT, json=ASK)
            return answer if answer.headers.get("X-Model-Version") == version else None

        answer = eventually(ask, within_s=30)
    say(
        f"version {version} answers {answer.json()['predictions']}, "
        f"for {answer.headers['X-Usage-Amount']}"
    )


def _records(shop: Shop) -> list[Any]:
    return shop.records(_open_store(shop)[0])


def _open_store(shop: Shop) -> tuple[ModelStore, TrustedKeys]:
    return ModelStore(f"gs://{shop.models}"), TrustedKeys.load(shop.home / "keys/trusted")
