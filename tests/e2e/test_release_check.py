"""`tollgate models check`, `wait` and `withdraw` on a running platform."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.platform import Platform, running
from harness.waiting import eventually


@pytest.fixture
def own_platform(new_home: Callable[[], Path]) -> Iterator[Platform]:
    """A platform whose model the test withdraws."""
    with running(new_home()) as started:
        yield started


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


def test_a_withdrawn_first_release_is_no_longer_served(own_platform: Platform) -> None:
    url = own_platform.urls["inference"]

    withdrawn = tollgate(
        own_platform, "withdraw", "wine", "--release", "1", "--reason", "it is wrong"
    )
    served = tollgate(
        own_platform, "wait", "wine", "--release", "2", "--url", url, "--within", "60"
    )

    assert (withdrawn.returncode, served.returncode) == (0, 0), withdrawn.stderr + served.stderr
    with own_platform.client("inference", own_platform.new_token()) as client:
        predict = {"instances": [[1.0] * 13]}
        assert client.post("/v1/models/wine:predict", json=predict).status_code == 404
        assert tollgate(own_platform, "check", "wine", "--release", "2").returncode == 0

        assert tollgate(own_platform, "release", "wine").returncode == 0
        eventually(lambda: client.get("/v1/models/wine").status_code == 200)
