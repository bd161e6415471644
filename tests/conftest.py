"""What all tests share: an empty database of either kind, on demand."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import cast
from uuid import uuid4

import pytest

from tests.mariadb import NoServer, Server, running_server


@pytest.fixture(scope="session", params=["sqlite", "mysql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test once per kind of database."""
    return cast(str, request.param)


@pytest.fixture(scope="session")
def new_database_url(
    database_server: Callable[[], Server], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """`new_database_url("sqlite" | "mysql")` is the URL of a new, empty database."""
    folder = tmp_path_factory.mktemp("databases")

    def new(kind: str) -> str:
        if kind == "mysql":
            return database_server().new_database()
        return f"sqlite+aiosqlite:///{folder / uuid4().hex}.db"

    return new


@pytest.fixture(scope="session")
def database_server() -> Iterator[Callable[[], Server]]:
    """The worker's MariaDB or MySQL server, started when first asked for."""
    with ExitStack() as stack:
        started: list[Server] = []

        def server() -> Server:
            if not started:
                try:
                    started.append(stack.enter_context(running_server()))
                except NoServer as error:
                    if os.environ.get("CI") == "true":
                        pytest.fail(f"{error}, and under CI nothing is skipped")
                    pytest.skip(f"MYSQL TESTS SKIPPED: {error}")
            return started[0]

        yield server
