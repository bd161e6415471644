"""What is left of a user who is deleted: usage, which has no personal data."""

import sqlite3
from contextlib import closing

from harness.platform import Platform
from harness.samples import PREDICT, WINE
from harness.waiting import eventually

NAME, KEY_NAME = "Ada Byron-Lovelace", "adas-phone"
USAGE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'usage%'"


def test_the_usage_of_a_deleted_user_stays_without_personal_data(platform: Platform) -> None:
    email, password = platform.register_user()
    token = platform.token(email, password)
    with platform.client("auth", token) as auth:
        auth.patch("/users/me", json={"name": NAME}).raise_for_status()
        account = auth.get("/users/me").json()["id"]
        key = auth.post("/api-keys", json={"name": KEY_NAME}).json()["key"]
    with platform.client("inference", token) as inference:
        inference.post(PREDICT, json={"instances": [WINE]}).raise_for_status()
    with platform.client("inference") as inference:
        tagged = {"X-API-Key": key, "X-Tags": "team=a"}
        inference.post(PREDICT, json={"instances": [WINE]}, headers=tagged).raise_for_status()
    eventually(lambda: len(usage_of(platform, account)) == 2)

    with platform.client("auth", token) as auth:
        assert auth.delete("/users/me").status_code == 204

    assert len(usage_of(platform, account)) == 2
    text = everything_about_usage(platform)
    assert account in text
    assert '{"team":"a"}' in text
    for personal in (email, email.partition("@")[0], NAME, KEY_NAME, key, password):
        assert personal not in text


def usage_of(platform: Platform, account: str) -> list[tuple[str]]:
    with closing(open_billing(platform)) as billing:
        found = billing.execute("SELECT id FROM usage_events WHERE account = ?", (account,))
        return found.fetchall()


def everything_about_usage(platform: Platform) -> str:
    """Return every value of every table of usage as text."""
    with closing(open_billing(platform)) as billing:
        tables = [name for (name,) in billing.execute(USAGE)]
        rows = [billing.execute(f"SELECT * FROM {name}").fetchall() for name in tables]
    return "\n".join("\t".join(map(str, row)) for table in rows for row in table)


def open_billing(platform: Platform) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{platform.home / 'billing.db'}?mode=ro", uri=True)
