"""`tollgate models check`, `wait` and `withdraw` on a running platform."""

import json
import subprocess

import pytest

from harness.platform import Platform
from harness.stores import PlatformStore
from harness.waiting import eventually

pytestmark = pytest.mark.costly


def tollgate(platform: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    return platform.run("models", *words)


def test_the_sample_model_is_checked_by_a_temporary_client(platform: Platform) -> None:
    checked = tollgate(platform, "check", "wine", "--json")
    platform.environment["TOLLGATE_CHECK_ACCOUNT_SEED"] = "any secret"
    seeded = tollgate(platform, "check", "wine")
    del platform.environment["TOLLGATE_CHECK_ACCOUNT_SEED"]

    assert (checked.returncode, seeded.returncode) == (0, 0), checked.stderr + seeded.stderr
    assert json.loads(checked.stdout)["verdict"] == "good"
    demo = json.loads((platform.home / "credentials.json").read_text())["demo"]
    token = platform.token(demo["email"], demo["password"])
    with platform.client("auth", token) as auth:
        assert "release check" not in auth.get("/clients").text


def test_a_withdrawn_first_release_is_no_longer_served(platform: Platform) -> None:
    url = platform.urls["inference"]
    number = PlatformStore(platform.home).live("wine").number
    first, second = str(number), str(number + 1)

    try:
        withdrawn = tollgate(
            platform, "withdraw", "wine", "--release", first, "--reason", "it is wrong"
        )
        served = tollgate(
            platform, "wait", "wine", "--release", second, "--url", url, "--within", "60"
        )

        output = withdrawn.stderr + served.stderr
        assert (withdrawn.returncode, served.returncode) == (0, 0), output
        with platform.client("inference", platform.new_token()) as client:
            predict = {"instances": [[1.0] * 13]}
            assert client.post("/v1/models/wine:predict", json=predict).status_code == 404
        assert tollgate(platform, "check", "wine", "--release", second).returncode == 0
    finally:
        released = tollgate(platform, "release", "wine")

    assert released.returncode == 0
    with platform.client("inference", platform.new_token()) as client:
        eventually(lambda: client.get("/v1/models/wine").status_code == 200)
