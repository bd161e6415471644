"""How many SQL statements the most frequent requests cost, because they take most of the time."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import event

from tests.integration.auth.conftest import LogIn


@contextmanager
def noting_statements(app: FastAPI) -> Iterator[list[str]]:
    """Note the statements of requests; background tasks have another engine."""
    noted: list[str] = []

    def note(_c: object, _r: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            noted.append(statement)

    engine = app.state.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield noted
    event.remove(engine, "before_cursor_execute", note)


async def test_a_log_in_from_a_known_address_costs_four_statements(
    app: FastAPI, ada: dict[str, str], log_in: LogIn
) -> None:
    await log_in()

    with noting_statements(app) as noted:
        answer = await log_in()

    assert answer.status_code == 200
    assert len(noted) == 4, noted


async def test_a_token_for_a_client_costs_one_statement(
    app: FastAPI, client: AsyncClient, inference: tuple[str, str]
) -> None:
    with noting_statements(app) as noted:
        form = {"grant_type": "client_credentials"}
        answer = await client.post("/token", data=form, auth=inference)

    assert answer.status_code == 200
    assert len(noted) == 1, noted
