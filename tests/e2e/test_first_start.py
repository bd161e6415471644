"""From nothing to a paid prediction, and what a second start keeps."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from harness.platform import Platform, running
from harness.samples import PREDICT, WINE
from harness.waiting import eventually

WRITTEN_ONCE = ("credentials.json", "keys", "data", "models")


def test_a_first_start_leads_to_a_paid_prediction_and_a_second_start_keeps_everything(
    new_home: Callable[[], Path],
) -> None:
    home = new_home()
    before = prepared_at(home)
    for name in ("auth.db", "billing.db"):
        (home / name).unlink()

    start_twice(home, {})

    assert before < prepared_at(home)


@pytest.mark.slow  # as on SQLite, above; chaos/ and tests of each service start on MySQL
def test_on_mysql_too_a_second_start_keeps_everything(
    new_database_url: Callable[[str], str], new_home: Callable[[], Path]
) -> None:
    services = ("AUTH", "BILLING")

    start_twice(
        new_home(), {f"{service}_DATABASE_URL": new_database_url("mysql") for service in services}
    )


def start_twice(home: Path, environment: dict[str, str]) -> None:
    """Start, pay for a prediction and stop; start again and find everything unchanged."""
    with running(home, environment) as platform:
        token = platform.new_token()
        receipt = predict(platform, token)
        eventually(lambda: platform.usage(token)["requests"] == 1)
        usage, receipts = platform.usage(token), list_receipts(platform, token)

        assert {key: usage[key] for key in ("requests", "rows", "currency")} == {
            "requests": 1,
            "rows": 2,
            "currency": "USD",
        }
        assert f"{usage['amount']} {usage['currency']}" == receipt["X-Usage-Amount"]
        assert [one["id"] for one in receipts] == [receipt["X-Usage-Event"]]
        assert receipts[0]["version"] == receipt["X-Model-Version"]
        demo = json.loads((home / "credentials.json").read_text())["demo"]
        assert platform.token(**demo)
        assert platform.stop() == 0
        digests_before, prepared_before = digests(home), prepared_at(home)

        platform.start()

        assert (digests(home), prepared_at(home)) == (digests_before, prepared_before)
        assert platform.usage(token) == usage
        assert list_receipts(platform, token) == receipts
        predict(platform, token)
        eventually(lambda: platform.usage(token)["requests"] == 2)


def prepared_at(home: Path) -> int:
    """Return when the preparation was last recorded."""
    return (home / "prepared").stat().st_mtime_ns


def predict(platform: Platform, token: str) -> dict[str, str]:
    """Predict two rows; return the receipt in the response headers."""
    with platform.client("inference", token) as inference:
        answer = inference.post(PREDICT, json={"instances": [WINE, WINE]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == [0, 0]
    assert answer.headers["X-Model-Name"] == "wine"
    return dict(answer.headers) | {
        name: answer.headers[name]
        for name in ("X-Model-Version", "X-Usage-Event", "X-Usage-Amount")
    }


def list_receipts(platform: Platform, token: str) -> list[dict[str, Any]]:
    with platform.client("billing", token) as billing:
        answer = billing.get("/usage/events")
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


def digests(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in the state folder that is written once."""
    files = [file for name in WRITTEN_ONCE for file in [home / name, *(home / name).rglob("*")]]
    return {
        str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def test_the_commands_that_up_prints_work_when_pasted_twice(platform: Platform) -> None:
    for _ in range(2):
        printed = subprocess.run(
            ["sh", "-c", platform.script()], capture_output=True, text=True, check=True
        )

        account, prediction, usage = map(json.loads, printed.stdout.splitlines())
        assert printed.stderr == ""
        assert account["email"].endswith("@example.com")
        assert prediction == {"predictions": [0]}
        assert usage["total"]["requests"] == 1


def test_the_credentials_of_the_installation_work(platform: Platform) -> None:
    credentials = json.loads((platform.home / "credentials.json").read_text())

    for name in ("admin", "demo"):
        assert platform.token(**credentials[name])


@pytest.mark.costly
def test_a_user_created_on_the_command_line_can_predict(platform: Platform) -> None:
    email, password = f"{uuid4().hex}@example.com", uuid4().hex

    created = platform.run("users", "create", email, "--password-stdin", "--json", input=password)
    again = platform.run("users", "create", email, "--password-stdin", input=password)
    token = platform.token(email, password)
    predict(platform, token)

    assert list(json.loads(created.stdout)) == ["id"]
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "error: A user with this e-mail address already exists.\n"


@pytest.mark.costly
def test_a_user_created_without_a_password_gets_one(platform: Platform) -> None:
    email = f"{uuid4().hex}@example.com"

    created = json.loads(platform.run("users", "create", email, "--json").stdout)

    assert platform.token(email, created["password"])
