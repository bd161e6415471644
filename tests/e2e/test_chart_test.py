"""The script of `helm test`, on a platform that runs here."""

import hashlib
import json
import os
import subprocess
import sys

from harness.platform import ROOT, Platform

SCRIPT = ROOT / "deploy/helm/tollgate/files/first_prediction.py"
PREPAID = {
    "name": "Prepaid",
    "currency": "USD",
    "billing": "prepaid",
    "prices": [
        {
            "model": None,
            "included_requests": 0,
            "tiers": [{"up_to_requests": None, "per_request": "1", "per_row": "0"}],
        }
    ],
    "rate_limit": None,
}


def run(platform: Platform, *, sample_model: str, seed: str) -> list[str]:
    """Return the lines that a successful run prints."""
    urls = {f"{name.upper()}_URL": url for name, url in platform.urls.items()}
    given = {"PATH": os.environ["PATH"], "SAMPLE_MODEL": sample_model, "ACCOUNT_SEED": seed}
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        env=given | urls,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


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
        admin = json.loads((platform.home / "credentials.json").read_text())["admin"]
        with platform.client("billing", platform.token(**admin)) as billing:
            plan = billing.post("/plans", json=PREPAID).json()["id"]
            billing.put(f"/accounts/{account}/plan", json={"plan": plan}).raise_for_status()

        [*_, last] = run(platform, sample_model="true", seed="poor")

        assert last == "the default plan does not cover this: This account has no credit left."
