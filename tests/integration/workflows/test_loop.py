"""From data in a bucket to a served model and back, with the functions and the workflows' steps."""

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from harness.accounts import PLENTY, new_prepaid_account
from harness.cloud import Cloud
from harness.gcs import Emulator
from harness.plans import PER_REQUEST, PER_ROW
from harness.platform import Platform
from harness.waiting import eventually
from harness.workflow_load import Load, paying
from rehearse.shop import MANUAL, MODEL, PREDICT, REQUEST, Shop, new_shop

CHECK = "Predict on it as a machine client"


@pytest.fixture
def shop(cloud: Cloud, gcs: Emulator, tmp_path: Path) -> Iterator[Shop]:
    with new_shop(cloud, gcs, tmp_path) as new:
        yield new


def receipts(platform: Platform, token: str) -> list[dict[str, Any]]:
    """Return every receipt of an account."""
    events: list[dict[str, Any]] = []
    cursor = None
    with platform.client("billing", token) as billing:
        while True:
            query = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
            page = billing.get("/usage/events", params=query).raise_for_status().json()
            events += page["events"]
            cursor = page["next_cursor"]
            if cursor is None:
                return events


@pytest.mark.slow
def test_data_becomes_a_served_model_and_is_rolled_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", shop.environment["STORAGE_EMULATOR_HOST"])
    config = {"target": "good", "estimators": ["linear"]}
    shop.cloud.put(f"{MODEL}/dataset.json", json.dumps(config).encode())
    shop.open()
    store = shop.store.store

    trained = shop.runner.run("train.yml", event=shop.drop("part-1", "part-2"))

    assert trained["Train on what arrived"] == "success", shop.runner.output
    eventually(lambda: shop.proxy.polls >= shop.polls_until_live(1))
    account = new_prepaid_account(shop.platform, credit=PLENTY)
    with paying(shop.platform, account.token, PREDICT, REQUEST, shop.proxy) as load:
        shop.runner.run("train.yml", event=shop.drop("part-3"))

        assert store.list_releases(MODEL) == [1, 2]

        released = shop.deliver(f"{MODEL}/releases/00000002.json")
        deployed = shop.runner.run("deploy.yml", event=released)

        assert deployed[CHECK] == "success", shop.runner.output
        eventually(lambda: load.has_predicted_after(shop.polls_until_live(2)))

        wish = {"what": "model", "model": MODEL, "reason": "we want it back"}
        shop.runner.run("rollback.yml", event=MANUAL, inputs=wish)

        eventually(lambda: load.has_predicted_after(shop.polls_until_live(3)))

    first, second, third = shop.records()
    assert [first.action, second.action, third.action] == ["release", "release", "rollback"]
    assert first.version == third.version != second.version
    assert second.by == "github/ada"
    assert_none_failed_and_each_swap_took_two_polls(
        load, shop, [first.version, second.version, third.version]
    )
    assert_each_is_billed(load, shop.platform, account.token)


def assert_none_failed_and_each_swap_took_two_polls(
    load: Load, shop: Shop, versions: list[str]
) -> None:
    assert {(answer.status, str(answer.predictions)) for answer in load.answers} == {(200, "[1]")}
    served_from = {number: shop.polls_until_live(number) for number in (2, 3)}
    for caller in load.callers:
        assert [version for version, _ in groupby(one.version for one in caller)] == versions
        last_of_first = max(one.polls for one in caller[: index_of(caller, versions[1])])
        last_of_second = max(one.polls for one in caller if one.version == versions[1])
        assert last_of_first < served_from[2]
        assert last_of_second < served_from[3]


def index_of(caller: list[Any], version: str) -> int:
    return next(place for place, one in enumerate(caller) if one.version == version)


def assert_each_is_billed(load: Load, platform: Platform, token: str) -> None:
    answered_events = [answer.event for answer in load.answers]
    eventually(lambda: platform.usage(token)["requests"] >= len(answered_events))

    assert sorted(one["id"] for one in receipts(platform, token)) == sorted(
        map(str, answered_events)
    )
    spent = len(answered_events) * Decimal(PER_REQUEST + PER_ROW)
    with platform.client("billing", token) as billing:
        balance = Decimal(billing.get("/balance").raise_for_status().json()["balance"])
    assert balance == (PLENTY - spent) / 10**9
