"""How many SQL statements the most frequent requests cost, because they take most of the time."""

from fastapi import FastAPI
from httpx import AsyncClient

from harness.statements import noted_statements
from tests.integration.auth.conftest import SignIn


async def test_a_sign_in_from_a_known_address_costs_four_statements(
    app: FastAPI, ada: dict[str, str], sign_in: SignIn
) -> None:
    await sign_in()

    with noted_statements(app.state.database) as noted:
        answer = await sign_in()

    assert answer.status_code == 200
    assert len(noted) == 4, noted


async def test_a_token_for_a_client_costs_one_statement(
    app: FastAPI, client: AsyncClient, inference: tuple[str, str]
) -> None:
    with noted_statements(app.state.database) as noted:
        form = {"grant_type": "client_credentials"}
        answer = await client.post("/token", data=form, auth=inference)

    assert answer.status_code == 200
    assert len(noted) == 1, noted
