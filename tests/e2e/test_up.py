"""How `tollgate up` starts, refuses to start, and stops."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.platform import Platform, end
from harness.waiting import eventually


@pytest.fixture
def stopped(new_home: Callable[[], Path]) -> Iterator[Platform]:
    """A platform that is prepared but not started."""
    platform = Platform(new_home())
    yield platform
    end(platform)


def refusal(platform: Platform) -> str:
    """Start, expect exit code 1 and no process left; return the output without service logs."""
    assert platform.launch().wait(timeout=60) == 1
    assert platform.pids() == {}
    lines = platform.output().splitlines()
    return "\n".join(line for line in lines if not line.startswith("{"))


LAST_COMMAND = r"^curl .*/usage.*\n"


def terminal_output(
    platform: Platform, *options: str, until: Sequence[str], stop: Callable[[Platform], None] = end
) -> str:
    """Start on a pseudo-terminal; return what it shows until all patterns occur, then stop."""
    controller, terminal = os.openpty()
    platform.launch(*options, terminal=terminal)
    os.close(terminal)
    shown = ""
    while not all(re.search(each, shown, re.MULTILINE) for each in until):
        shown += os.read(controller, 65536).decode()  # raises once every writer has gone
    stop(platform)
    os.close(controller)
    return shown.replace("\r", "")


@pytest.mark.costly
def test_a_terminal_shows_the_steps_of_the_start_then_the_addresses(stopped: Platform) -> None:
    stopped.environment["NO_COLOR"] = "1"

    request = r"^\S+ auth +info +request_completed +method=GET .*\n"
    shown = terminal_output(stopped, until=(LAST_COMMAND, request))

    message = re.compile(r"^\d\d:\d\d:\d\d (\w+) +(info|warning) +(\S.*)$")
    lines = [match for line in shown.splitlines() if (match := message.match(line))]
    assert len({match.start(3) for match in lines}) == 1
    ready = (re.fullmatch(r"(\w+) ready +seconds=\d+\.\d", match[3]) for match in lines)
    assert {match[1] for match in ready if match} >= stopped.urls.keys()
    after = shown[shown.index("  Ready in ") :]
    addresses = re.findall(r"^  (\w+) +(http\S+)(?: +(http\S+))?$", after, re.MULTILINE)
    assert {name: url for name, url, _ in addresses} == stopped.urls
    assert {name: docs for name, _, docs in addresses} == {
        name: "" if name == "console" else f"{url}/docs" for name, url in stopped.urls.items()
    }
    assert f"Credentials: {stopped.home / 'credentials.json'}" in after
    assert "\x1b" not in shown


@pytest.mark.costly
def test_a_terminal_gets_json_if_that_is_asked_for_and_ctrl_c_stops_all_cleanly(
    stopped: Platform,
) -> None:
    def press_ctrl_c(platform: Platform) -> None:
        assert platform.runner is not None
        assert len(platform.pids()) == 5
        os.killpg(platform.runner.pid, signal.SIGINT)
        os.killpg(platform.runner.pid, signal.SIGINT)  # as when `make` forwards its own
        assert platform.runner.wait(timeout=60) == 0
        assert platform.pids() == {}

    shown = terminal_output(stopped, "--json", until=(LAST_COMMAND,), stop=press_ctrl_c)

    entries = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert {entry["service"] for entry in entries} >= {"auth", "billing", "inference", "tollgate"}
    assert "\x1b" not in shown


@pytest.mark.costly
def test_a_signal_while_it_prepares_stops_it_cleanly(stopped: Platform) -> None:
    (stopped.home / "prepared").unlink()
    runner = stopped.launch()
    eventually(lambda: len(stopped.pids()) > 1)

    runner.terminate()

    assert runner.wait(timeout=60) == 0
    assert stopped.pids() == {}
    assert "Traceback" not in stopped.output()


@pytest.mark.costly
def test_a_second_signal_ends_even_a_service_that_hangs(stopped: Platform) -> None:
    stopped.start()
    assert stopped.runner is not None
    hanging = stopped.pid("inference")
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)

    stopped.runner.terminate()
    eventually(lambda: "stopping" in stopped.output())
    time.sleep(1.1)  # any sooner, it would be taken for an echo of the first
    stopped.runner.terminate()

    stopped.runner.wait(timeout=60)
    assert stopped.pids() == {}


@pytest.mark.costly
def test_a_killed_runner_leaves_nothing_behind(stopped: Platform) -> None:
    stopped.start()
    assert stopped.runner is not None

    stopped.runner.kill()
    stopped.runner.wait()

    eventually(lambda: stopped.pids() == {})


@pytest.mark.costly
def test_a_second_runner_on_the_same_state_folder_is_refused(platform: Platform) -> None:
    second = platform.run("up")

    assert second.returncode == 1
    assert second.stderr == f"error: another `tollgate up` is already using {platform.home}\n"
    assert platform.is_ready("inference")


@pytest.mark.costly
def test_a_port_in_use_is_reported_in_one_line(stopped: Platform) -> None:
    with socket.create_server(("127.0.0.1", stopped.ports["inference"])):
        output = refusal(stopped)

    where = f"127.0.0.1:{stopped.ports['inference']}"
    assert f"error: INFERENCE_PORT: cannot listen on {where}: Address already in use" in output
    assert output.count("error:") == 1


@pytest.mark.costly
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUTH_PORT", "http"),
        ("BILLING_DEFAULT_PLAN", "{}"),
        ("TRAINER_SEED", "none"),
        ("INFERENCE_JOURNAL_DIR", "/dev/null/journal"),
    ],
    ids=["of the runner", "of the databases", "of the sample", "of a service"],
)
def test_an_invalid_setting_is_named_in_one_line(
    stopped: Platform, variable: str, value: str
) -> None:
    stopped.environment[variable] = value

    output = refusal(stopped)

    assert [line.partition(":")[0] for line in output.splitlines() if "error" in line] == ["error"]
    assert f"error: {variable}: " in output


def test_a_read_only_state_folder_is_reported_in_one_line(
    stopped: Platform, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    stopped.environment["TOLLGATE_HOME"] = str(tmp_path / "file" / "home")

    output = refusal(stopped)

    assert output == f"error: TOLLGATE_HOME: cannot write to {tmp_path}/file/home: Not a directory"
