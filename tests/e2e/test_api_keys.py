"""API keys and revocations across the three real services."""

from typing import Any

import httpx
import pytest

from harness.platform import Platform
from harness.samples import PREDICT, WINE
from harness.waiting import eventually

KINDS = ("a key", "a rotated key", "a disabled user's token", "a revoked token")


def predict(platform: Platform, headers: dict[str, str]) -> httpx.Response:
    with platform.client("inference") as inference:
        return inference.post(PREDICT, json={"instances": [WINE]}, headers=headers)


def read_usage(platform: Platform, headers: dict[str, str]) -> httpx.Response:
    with platform.client("billing") as billing:
        return billing.get("/usage", headers=headers)


def new_key(platform: Platform, token: str, **body: object) -> dict[str, Any]:
    with platform.client("auth", token) as auth:
        answer = auth.post("/api-keys", json={"name": "tests"} | body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def requests_of(platform: Platform, headers: dict[str, str]) -> int:
    return int(read_usage(platform, headers).json()["total"]["requests"])


def test_a_key_predicts_and_its_account_is_billed_but_not_for_a_test_key(
    platform: Platform,
) -> None:
    token = platform.new_token()
    live = {"X-API-Key": new_key(platform, token)["key"]}
    test = {"X-API-Key": new_key(platform, token, mode="test")["key"]}

    answers = [predict(platform, headers) for headers in (test, live, test, live)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[0].headers["x-usage-amount"].endswith(" (test)")
    eventually(lambda: requests_of(platform, live) == 2)
    assert requests_of(platform, test) == 2
    with platform.client("auth", token) as auth:
        used = [key["last_used_at"] for key in auth.get("/api-keys").json()["api_keys"]]
    assert None not in used


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_revoked_is_refused_by_every_service(platform: Platform, kind: str) -> None:
    email, password = platform.register_user()
    token = platform.token(email, password)
    if kind.endswith("key"):
        key = new_key(platform, token)
        headers = {"Authorization": f"Bearer {key['key']}"}
    else:
        headers = {"Authorization": f"Bearer {token}"}
    assert predict(platform, headers).status_code == 200
    assert read_usage(platform, headers).status_code == 200

    with platform.client("auth", token) as auth:
        if kind == "a key":
            auth.delete(f"/api-keys/{key['id']}").raise_for_status()
        elif kind == "a rotated key":
            auth.post(f"/api-keys/{key['id']}/rotate").raise_for_status()
        elif kind == "a disabled user's token":
            assert platform.run("users", "disable", email).returncode == 0
        else:
            auth.post("/revoke", data={"token": token}).raise_for_status()

    eventually(lambda: predict(platform, headers).status_code == 401)
    eventually(lambda: read_usage(platform, headers).status_code == 401)
