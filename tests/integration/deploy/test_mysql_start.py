"""The chart's MySQL starts with its own script, whatever happened before."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness.waiting import eventually
from tests.integration.deploy.mysql_server import ChartServer, new_server


@pytest.fixture
def server() -> Iterator[ChartServer]:
    """A server that has never been started."""
    with new_server() as chart_server:
        yield chart_server


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the script and everything it runs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def refusal_of(server: ChartServer) -> str:
    """Return the message of a start that is refused."""
    process = server.begin()
    assert process.wait(timeout=60) == 1
    return (server.data.parent / "log").read_text().splitlines()[-1]


class TestStart:
    @pytest.mark.costly
    def test_an_interrupted_first_start_is_repaired_and_later_ones_keep_the_data(
        self, server: ChartServer
    ) -> None:
        process = server.begin()
        eventually(lambda: (server.data / "mysql").exists())  # far from complete
        kill_group(process)

        with server.running():
            assert all(map(server.can_connect, server.passwords))
            server.as_root("CREATE TABLE tollgate_billing.kept (id INT PRIMARY KEY)")
        server.passwords |= {"billing": "another", "root": "newroot"}

        with server.running():
            assert all(map(server.can_connect, server.passwords))
            assert not server.can_connect("billing", password="billingpassword")
            assert server.as_root("SHOW TABLES FROM tollgate_billing") == [("kept",)]

    def test_a_first_start_stops_on_sigterm(self, server: ChartServer) -> None:
        process = server.begin()
        eventually(lambda: (server.data / "mysql").exists())
        process.terminate()

        assert process.wait(timeout=60) in (
            128 + signal.SIGTERM,
            0,
        )  # 0: already running
        with suppress(ProcessLookupError):  # MariaDB's installer has child processes
            os.killpg(process.pid, signal.SIGKILL)

    def test_an_unrelated_folder_is_left_alone(self, server: ChartServer) -> None:
        (server.data / "thesis.txt").write_text("years of work")

        for _ in range(2):
            assert refusal_of(server).endswith("contains files but no server tables")

        assert [path.name for path in server.data.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize("password", ["it's", "", "pässe"])
    def test_a_password_that_could_break_a_statement_is_refused(
        self, server: ChartServer, password: str
    ) -> None:
        server.passwords["auth"] = password

        assert refusal_of(server) == "error: passwords must be letters and digits"
        assert list(server.data.iterdir()) == []
