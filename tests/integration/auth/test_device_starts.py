"""How many devices an address may start."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI

from services.auth.bootstrap import ensure_first_party_clients
from services.auth.openid import devices
from services.auth.tokens.guesses import GuessLimits
from services.common.contracts import COMMAND_CLIENT
from services.common.db.database import Database
from tests.integration.auth.conftest import browse


@pytest.fixture
async def limit(app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch) -> int:
    """A low limit, and the client of the command line."""
    monkeypatch.setattr(devices, "_STARTS", GuessLimits(attempts=2, window_s=600))
    async with database.transaction() as session:
        await ensure_first_party_clients(session, app.state.issuer.settings)
    return 2


async def start(app: FastAPI, address: str, *, times: int = 1) -> list[int]:
    """Start devices; return the status codes."""
    path, form = "/device_authorization", {"client_id": COMMAND_CLIENT}
    async with browse(app, address=address) as client:
        return [(await client.post(path, data=form)).status_code for _ in range(times)]


@pytest.mark.costly
@pytest.mark.parametrize("stranger", ["2001:db8:0:{}::1".format, "198.51.100.{}".format])
async def test_many_addresses_together_do_not_lock_out_another(
    app: FastAPI, limit: int, stranger: Callable[[int], str]
) -> None:
    for number in range(12):
        assert await start(app, stranger(number), times=limit + 1) == [200] * limit + [429]

    assert await start(app, "203.0.113.7") == [200]
    assert await start(app, "2001:db8:ffff::1") == [200]


async def test_the_hosts_of_an_ipv6_network_share_a_limit(app: FastAPI, limit: int) -> None:
    codes = [await start(app, f"2001:db8::{host}") for host in range(1, limit + 2)]

    assert codes == [[200]] * limit + [[429]]
