"""Services work together if their clocks differ by up to two minutes, and not beyond that."""

import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from harness.auth_keys import local_key_ring
from harness.platform import Platform
from harness.samples import PREDICT, WINE
from services.auth.callers import FIRST_PARTY
from services.billing.events.batch import MAX_AHEAD
from services.billing.sources.service import LOST_AFTER
from services.common.contracts import AUDIENCE, CLOUDEVENTS_ONE, EVENT_SOURCE, EVENT_TYPE
from services.common.identity.tokens import LEEWAY_S
from services.inference.metering.leases.reservations import SPENDABLE_S

NEARLY_S = LEEWAY_S - 20
OVER_S = LEEWAY_S + 20
LIFETIME_S = 600
ACCOUNT = "0198a000-0000-7000-8000-00000000000c"


def signed_by_a_clock(platform: Platform, *, ahead_s: int, scope: str) -> str:
    """Return a new token, signed by an auth service whose clock is ahead."""
    issued = int(time.time()) + ahead_s
    claims = {
        "iss": platform.urls["auth"],
        "sub": ACCOUNT,
        "aud": AUDIENCE,
        "iat": issued,
        "exp": issued + LIFETIME_S,
        "jti": str(uuid.uuid4()),
        "client_id": FIRST_PARTY,
        "scope": scope,
    }
    return local_key_ring(platform.home).sign(claims)


@pytest.mark.parametrize(
    ("ahead_s", "status"),
    [
        (NEARLY_S, 200),
        (OVER_S, 401),
        (-NEARLY_S, 200),
        pytest.param(-LIFETIME_S, 401, id="a token that just expired"),
    ],
)
def test_a_token_is_only_valid_while_the_clocks_differ_by_up_to_two_minutes(
    platform: Platform, ahead_s: int, status: int
) -> None:
    token = signed_by_a_clock(platform, ahead_s=ahead_s, scope="predict usage:read")

    with platform.client("inference", token) as inference:
        predicted = inference.post(PREDICT, json={"instances": [WINE]})
    with platform.client("billing", token) as billing:
        usage = billing.get("/usage")

    assert (predicted.status_code, usage.status_code) == (status, status)


def test_usage_dated_by_a_clock_ahead_is_accepted(platform: Platform) -> None:
    token = signed_by_a_clock(platform, ahead_s=NEARLY_S, scope="billing:write")
    event = {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": EVENT_SOURCE,
        "id": str(uuid.uuid4()),
        "subject": ACCOUNT,
        "time": (datetime.now(UTC) + timedelta(seconds=NEARLY_S)).isoformat(),
        "data": {"model": "wine", "version": "20261122t000000z-0a1b2c3d", "rows": 1},
    }

    with platform.client("billing", token) as billing:
        answer = billing.post(
            "/events", content=json.dumps(event), headers={"Content-Type": CLOUDEVENTS_ONE}
        )

    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)


def test_every_margin_between_two_services_is_two_minutes_or_more() -> None:
    margin = timedelta(minutes=2)

    assert timedelta(seconds=LEEWAY_S) >= margin
    assert margin <= MAX_AHEAD
    assert LOST_AFTER - timedelta(seconds=SPENDABLE_S) >= margin
