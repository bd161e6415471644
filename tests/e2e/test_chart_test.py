"""The script of `helm test`, on a platform that runs here."""

import hashlib
import os
import subprocess
import sys

from harness.accounts import put_on_plan, store_plan
from harness.plans import plan, price
from harness.platform import Platform
from harness.programs import ROOT

SCRIPT = ROOT / "deploy/helm/tollgate/files/first_prediction.py"
PREPAID = plan(price((None, "1", "0")), name="Prepaid", billing="prepaid")


def run(platform: Platform, *, sample_model: str, seed: str) -> list[str]:
    """Return the lines that a successful run prints."""
    urls = {f"{name.upper()}_URL": url for name, url in platform.urls.items()}
    environment = {"PATH": os.environ["PATH"], "SAMPLE_MODEL": sample_model, "ACCOUNT_SEED": seed}
    result = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        env=environment | urls,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


class TestChartTest:
    def test_it_follows_a_callers_steps_and_creates_its_account_once(
        self, platform: Platform
    ) -> None:
        runs = [
            run(platform, sample_model=sample_model, seed="one")
            for sample_model in ("true", "true", "false")
        ]

        assert [(lines[0], lines[-1]) for lines in runs] == [
            ("register: 201", "bill: 0.0006 USD"),
            ("register: 409", "bill: 0.0006 USD"),
            ("register: 409", "usage: 200"),
        ]

    def test_a_default_plan_that_needs_credit_is_not_a_failure(self, platform: Platform) -> None:
        run(platform, sample_model="false", seed="poor")
        derived = hashlib.sha256(b"helm test poor").hexdigest()
        token = platform.token(f"helm-test-{derived[:8]}@tollgate.example", derived[8:])
        with platform.client("auth", token) as auth:
            account = auth.get("/users/me").json()["id"]
        with platform.client("billing", platform.admin_token()) as billing:
            put_on_plan(billing, account, plan_id=store_plan(billing, PREPAID))

        [*_, last] = run(platform, sample_model="true", seed="poor")

        assert last == "the default plan does not cover this: This account has no credit left."
