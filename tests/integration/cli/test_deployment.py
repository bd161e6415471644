"""`tollgate models wait` and `withdraw`."""

import json
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.serving.cluster import TRIES, read_document
from cli.serving.pods import Pod, crashing_since
from harness.http_servers import Response, serving
from harness.stores import FIRST, SECOND, World
from tests.integration.trainer.conftest import Workshop, new_workshop

Run = Callable[..., Result]


@pytest.fixture
def two(tmp_path: Path) -> Workshop:
    """Release two versions; the second is live as release 2."""
    workshop = new_workshop(tmp_path)
    for version in (FIRST, SECOND):
        world_of(workshop).publish(version)
        workshop.release_manager.release("wine", version=version)
    return workshop


@pytest.fixture
def run(two: Workshop, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TOLLGATE_HOME", str(two.home))
    return lambda *words: CliRunner().invoke(app, ["models", *words])


def world_of(workshop: Workshop) -> World:
    key = workshop.settings.load_signing_key()
    return World(workshop.home, workshop.settings.model_store_url, key, workshop.trusted)


def live(workshop: Workshop) -> tuple[int, str]:
    record = workshop.store.live_release("wine", workshop.trusted)
    assert record is not None
    return record.number, record.version


@contextmanager
def a_process_that_serves(*releases: int) -> Iterator[str]:
    """Serve metrics that show one release after the other, and then stay at the last."""
    left = list(releases)

    def answer(_: object) -> Response:
        number = left.pop(0) if len(left) > 1 else left[0]
        wine = f'tollgate_model_live_release{{model="wine",version="v"}} {number}.0\n'
        return Response(
            200, f'{wine}tollgate_model_live_release{{model="beer",version="v"}} 9.0\n'.encode()
        )

    with serving(answer) as url:
        yield url


class TestWait:
    @pytest.mark.parametrize(
        "page",
        [
            b"<html>no metrics</html>",
            b'tollgate_model_live_release{model="wine",version="v"} NaN\n',
            b"x{",
        ],
    )
    def test_a_response_without_metrics_is_an_unknown_release(self, run: Run, page: bytes) -> None:
        with serving(lambda _: Response(200, page)) as url:
            outcome = run("wait", "wine", "--release", "2", "--url", url, "--within", "0")

        assert outcome.exit_code == 1
        assert isinstance(outcome.exception, SystemExit)
        assert f"error: {url}" in outcome.stderr

    def test_it_ends_when_every_process_serves_the_release(self, run: Run) -> None:
        with a_process_that_serves(2) as quick, a_process_that_serves(0, 1, 2) as slow:
            ended = run("wait", "wine", "--release", "2", "--url", quick, "--url", f"{slow}/")

        assert (ended.exit_code, ended.stdout) == (
            0,
            "wine: release 2 or later is served by 2 processes\n",
        )

    def test_a_later_release_will_do(self, run: Run) -> None:
        with a_process_that_serves(3) as url:
            assert run("wait", "wine", "--release", "2", "--url", url).exit_code == 0

    def test_processes_that_are_behind_are_named(self, run: Run) -> None:
        gone = "http://127.0.0.1:1"
        with a_process_that_serves(2) as good, a_process_that_serves(1) as late:
            urls = [word for url in (good, late, gone) for word in ("--url", url)]
            ended = run("wait", "wine", "--release", "2", *urls, "--within", "0")

        assert ended.exit_code == 1
        assert ended.stderr.splitlines() == [
            f"error: {late} serves release 1",
            f"error: {gone} does not report which release it serves",
            "error: release 2 of wine is not served by every process: a process serves an older "
            "release",
        ]

    def test_an_invalid_release_is_not_waited_for(self, run: Run, two: Workshop) -> None:
        world_of(two).path(SECOND, "model.onnx").flip_bit()

        with a_process_that_serves(2) as url:
            damaged = run("wait", "wine", "--release", "2", "--url", url)
            absent = run("wait", "wine", "--release", "3", "--url", url)

        assert (
            damaged.stderr
            == f"error: File 'model.onnx' of 'wine' {SECOND} does not match its signed digest.\n"
        )
        assert absent.stderr == "error: Release 3 of wine not found.\n"
        assert damaged.exit_code == absent.exit_code == 1

    def test_it_requires_processes_to_query(self, run: Run) -> None:
        assert run("wait", "wine", "--release", "2").exit_code == 2

    def test_a_cluster_that_cannot_be_queried_is_not_evidence(
        self, run: Run, two: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

        for target in (("--pods", "app=x"), ("--helm-release", "shop")):
            ended = run("wait", "wine", "--release", "2", *target, "--within", "0", "--withdraw")

            assert ended.exit_code == 1
            assert ended.stderr.splitlines()[0] == "error: kubectl: FileNotFoundError"
            assert "nothing was withdrawn" in ended.stderr.splitlines()[-1]
        assert live(two) == (2, SECOND)

    def test_an_unreachable_process_withdraws_nothing(self, run: Run, two: Workshop) -> None:
        with a_process_that_serves(2) as good:
            urls = [word for url in (good, "http://127.0.0.1:1") for word in ("--url", url)]
            ended = run("wait", "wine", "--release", "2", *urls, "--within", "0", "--withdraw")

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert ended.stderr.splitlines()[-1] == (
            "error: could not find out which release of wine is served; nothing was withdrawn "
            "for release 2"
        )

    def test_a_process_on_an_older_release_withdraws_it(self, run: Run, two: Workshop) -> None:
        words = ("wait", "wine", "--release", "2", "--within", "0", "--withdraw", "--json")
        with a_process_that_serves(1) as late:
            ended = run(*words, "--url", late, "--url", "http://127.0.0.1:1")

        outcome = json.loads(ended.stdout)
        assert (ended.exit_code, live(two)) == (1, (3, FIRST))
        assert (outcome["verdict"], outcome["withdrawn"]) == ("behind", True)
        assert outcome["served"] == {late: 1, "http://127.0.0.1:1": None}

    def test_however_many_processes_are_named_the_end_of_its_log_has_the_outcome(
        self, run: Run
    ) -> None:
        silent = [f"http://127.0.0.1:1/{number}" for number in range(30)]
        words = [word for url in silent for word in ("--url", url)]

        with a_process_that_serves(1) as late:
            ended = run(
                "wait", "wine", "--release", "2", "--json", "--within", "0", "--url", late, *words
            )

        log = "\n".join(ended.output.splitlines()[-20:])
        assert read_document(log)["verdict"] == "behind"

    def test_without_the_option_it_withdraws_nothing(self, run: Run, two: Workshop) -> None:
        with a_process_that_serves(1) as late:
            ended = run("wait", "wine", "--release", "2", "--url", late, "--within", "0")

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))

    def test_every_address_of_a_host_name_is_queried(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = socket.getaddrinfo

        def look_up(host: str, *rest: Any, **options: Any) -> list[Any]:
            names = ("127.0.0.1", "127.0.0.2") if host == "pods.example" else (host,)
            return [found for name in names for found in real(name, *rest, **options)]

        monkeypatch.setattr("socket.getaddrinfo", look_up)
        with a_process_that_serves(2) as url:
            port = url.rpartition(":")[2]
            name = f"http://pods.example:{port}"
            ended = run("wait", "wine", "--release", "2", "--resolve", name, "--within", "0")

        assert ended.exit_code == 1
        assert ended.stderr.startswith(f"error: http://127.0.0.2:{port} does not report")

    def test_an_unknown_host_name_is_not_evidence(self, run: Run, two: Workshop) -> None:
        name = "http://nobody.invalid:8002"

        ended = run("wait", "wine", "--release", "2", "--resolve", name, "--within", "0")

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert "nothing was withdrawn" in ended.stderr


KUBECTL = """#!{python}
import json, os, pathlib, subprocess, sys
folder, words = pathlib.Path({folder!r}), sys.argv[2:]
if "--raw" in words or "proxy" in " ".join(words):
    sys.exit("the API server's proxy is blocked")
verb = " ".join(words[:2])
failures = folder / f"failures of {{words[0]}}"
if failures.exists() and (left := int(failures.read_text())):
    failures.write_text(str(left - 1))
    sys.exit("the connection was lost")
if verb == "get pods":
    print(json.dumps({{"items": json.loads((folder / "pods").read_text())}}))
elif verb == "get cronjobs":
    container = {{"name": "release-check", "command": ["tollgate"], "args": ["models", "list"]}}
    template = {{"spec": {{"template": {{"spec": {{"containers": [container]}}}}}}}}
    item = {{"metadata": {{"name": "shop-release-check"}}, "spec": {{"jobTemplate": template}}}}
    print(json.dumps({{"items": [item]}}))
elif words[0] == "apply":
    job = json.load(sys.stdin)
    [container] = job["spec"]["template"]["spec"]["containers"]
    args = [os.path.expandvars(arg.replace("$(", "${{").replace(")", "}}"))
            for arg in container["args"]]
    done = subprocess.run([sys.executable, "-m", "cli.main", *args], capture_output=True, text=True)
    (folder / "log").write_text(done.stdout + done.stderr)
    (folder / "status").write_text("succeeded" if done.returncode == 0 else "failed")
    (folder / "name").write_text(job["metadata"]["name"])
elif verb == "get job":
    print(json.dumps({{"status": {{(folder / "status").read_text(): 1}}}}))
elif words[0] == "logs":
    print((folder / "log").read_text() if not (folder / "deaf").exists() else "")
elif words[0] == "delete":
    (folder / "deleted").write_text(" ".join(words))
"""
"""A fake cluster that runs the Job locally, and blocks the API server's proxy to pods."""


def a_crashing_pod(name: str, *, released: datetime) -> Pod:
    """Return a pod that was ready before a release and has crashed repeatedly since."""
    before, after = (released + timedelta(minutes=minutes) for minutes in (-60, 2))
    return {
        "metadata": {"name": name, "creationTimestamp": before.isoformat()},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": after.isoformat()}
            ],
            "containerStatuses": [
                {
                    "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 139, "finishedAt": after.isoformat()}},
                }
            ],
        },
    }


class TestInTheCluster:
    @pytest.fixture
    def cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "cluster"
        folder.mkdir()
        kubectl = folder / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
        kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
        (folder / "pods").write_text("[]")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    def wait(self, run: Run) -> Result:
        words = ("--helm-release", "shop", "--namespace", "sales", "--within", "0", "--withdraw")
        return run("wait", "wine", "--release", "2", *words)

    def test_the_job_sees_that_every_pod_serves_the_release(
        self, run: Run, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, ended.stdout) == (
            0,
            "wine: release 2 or later is served by 1 process\n",
        )
        name = (cluster / "name").read_text()
        assert re.fullmatch("shop-release-check-[0-9a-f]{8}", name)
        assert (cluster / "deleted").read_text() == (
            f"delete job {name} -n sales --wait=false --ignore-not-found"
        )

    @pytest.mark.parametrize("command", ["get", "apply", "logs"])
    def test_a_command_that_fails_for_a_moment_is_repeated(
        self, run: Run, cluster: Path, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setattr("cli.serving.cluster.POLL_S", 0.0)
        (cluster / f"failures of {command}").write_text(str(TRIES - 1))

        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert ended.exit_code == 0
        assert ended.stderr.count(f"`kubectl {command}` failed; retrying") == TRIES - 1

    @pytest.mark.parametrize("command", ["get", "apply", "logs"])
    def test_a_command_that_keeps_failing_ends_without_a_verdict(
        self,
        run: Run,
        two: Workshop,
        cluster: Path,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
    ) -> None:
        monkeypatch.setattr("cli.serving.cluster.POLL_S", 0.0)
        monkeypatch.setattr("cli.serving.cluster.START_S", 1.0)
        (cluster / f"failures of {command}").write_text("1000")

        with a_process_that_serves(1) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert "nothing was withdrawn" in ended.stderr.splitlines()[-1]

    def test_pods_that_all_crash_since_the_release_withdraw_it(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = two.store.find_release("wine", 2)
        assert record is not None
        pods = [a_crashing_pod(name, released=record.time) for name in ("one", "two")]
        (cluster / "pods").write_text(json.dumps(pods))
        monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", "http://nobody.invalid:8002")

        ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (3, FIRST))
        assert "error: one serves no release" in ended.stderr
        assert ended.stderr.endswith(": every pod has been crashing since the release\n")
        withdrawal = two.store.find_release("wine", 3)
        assert withdrawal is not None
        assert withdrawal.reason == "every pod has been crashing since the release"

    def test_pods_that_crash_do_not_outweigh_one_that_serves_the_release(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = two.store.find_release("wine", 2)
        assert record is not None
        (cluster / "pods").write_text(json.dumps([a_crashing_pod("one", released=record.time)]))

        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (0, (2, SECOND))

    def test_the_job_sees_a_pod_on_an_older_release(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_process_that_serves(1) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (3, FIRST))
        assert f"error: {url} serves release 1" in ended.stderr

    @pytest.mark.parametrize("fault", ["no pods", "no log"])
    def test_a_job_without_an_outcome_withdraws_nothing(
        self,
        run: Run,
        two: Workshop,
        cluster: Path,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", "http://nobody.invalid:8002")
        if fault == "no log":
            (cluster / "deaf").touch()

        ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert "nothing was withdrawn" in ended.stderr


RELEASED = datetime(2026, 11, 25, 12, tzinfo=UTC)


class TestCrashes:
    def test_pods_that_all_crash_since_a_release_are_evidence(self) -> None:
        pods = [a_crashing_pod(name, released=RELEASED) for name in ("one", "two")]

        assert crashing_since(RELEASED, pods) == ["one", "two"]

    def test_a_pod_added_since_the_release_counts_if_it_crashes_too(self) -> None:
        old, new = (a_crashing_pod(name, released=RELEASED) for name in ("old", "new"))
        new["metadata"]["creationTimestamp"] = "2026-11-25T12:01:00Z"
        new["status"]["conditions"][0]["lastTransitionTime"] = "2026-11-25T12:01:00Z"

        assert crashing_since(RELEASED, [old, new]) == ["old", "new"]
        assert crashing_since(RELEASED, [new]) == []

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("conditions", 0, "status"), "True"),
            (("conditions", 0, "lastTransitionTime"), "2026-11-25T11:30:00Z"),
            (("conditions",), []),
            (("containerStatuses",), []),
            (("containerStatuses", 0, "restartCount"), 1),
            (("containerStatuses", 0, "lastState"), {}),
            (("containerStatuses", 0, "lastState", "terminated", "exitCode"), 0),
            (("containerStatuses", 0, "lastState", "terminated", "finishedAt"), None),
            (
                ("containerStatuses", 0, "lastState", "terminated", "finishedAt"),
                "2026-11-25T11:30:00Z",
            ),
        ],
        ids=[
            "ready",
            "unready before",
            "not reported",
            "not started",
            "restarted once",
            "never ended",
            "ended well",
            "no time",
            "crashed before",
        ],
    )
    def test_one_pod_without_such_a_crash_is_no_evidence(
        self, place: tuple[str | int, ...], value: Any
    ) -> None:
        one, other = (a_crashing_pod(name, released=RELEASED) for name in ("one", "other"))
        *path, last = place
        within: Any = other["status"]
        for step in path:
            within = within[step]
        within[last] = value

        assert crashing_since(RELEASED, [one, other]) == []

    def test_no_pods_are_no_evidence(self) -> None:
        assert crashing_since(RELEASED, []) == []


class TestWithdraw:
    def test_the_live_release_is_rolled_back(self, run: Run, two: Workshop) -> None:
        ended = run("withdraw", "wine", "--release", "2", "--reason", "it is slow")

        assert (ended.exit_code, live(two)) == (0, (3, FIRST))
        record = two.store.find_release("wine", 3)
        assert record is not None
        assert (record.action, record.reason) == ("rollback", "it is slow")

    def test_a_second_withdrawal_changes_nothing(self, run: Run, two: Workshop) -> None:
        outputs = [run("withdraw", "wine", "--release", "2") for _ in range(2)]

        assert [ended.exit_code for ended in outputs] == [0, 0]
        assert outputs[1].stdout == "wine: nothing to withdraw; release 3 is live\n"
        assert live(two) == (3, FIRST)

    def test_a_newer_release_is_left_alone(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005")
        two.release_manager.release("wine")

        assert run("withdraw", "wine", "--release", "2", "--json").exit_code == 0

        assert live(two)[0] == 3

    def test_a_release_that_never_went_live_is_left_alone(self, run: Run, two: Workshop) -> None:
        world_of(two).path(SECOND, "manifest.json").flip_bit()

        assert run("withdraw", "wine", "--release", "2").exit_code == 0

        assert (two.store.list_releases("wine"), live(two)[0]) == ([1, 2], 1)

    def test_a_rollback_is_never_withdrawn(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005")
        two.release_manager.release("wine")
        two.release_manager.roll_back("wine")

        assert run("withdraw", "wine", "--release", "4").exit_code == 0

        assert live(two) == (4, SECOND)

    def test_it_does_nothing_if_another_record_is_written_meanwhile(
        self, two: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rival = two.release_manager
        looked: list[int] = []

        class Overtaken(type(two.store)):  # type: ignore[misc]
            """Lets a rival write between the read and the write."""

            def append_release(self, model: str, *, decide: object) -> object:
                if not looked:
                    looked.append(1)
                    rival.release("wine", version=FIRST)
                return super().append_release(model, decide=decide)

        late = type(rival)(
            store=Overtaken(two.settings.model_store_url), trusted=two.trusted, by="machine"
        )

        decision = late.roll_back("wine", expected_release=2)

        assert (decision.written, live(two)[0]) == (False, 3)

    def test_the_first_release_leaves_nothing_live(self, run: Run, two: Workshop) -> None:
        version = "20261125t120000z-00000005"
        world_of(two).publish(version, model="beer")
        two.release_manager.release("beer")

        ended = run("withdraw", "beer", "--release", "1", "--reason", "it is wrong")
        again = run("withdraw", "beer", "--release", "1")

        assert ended.exit_code == 0
        assert ended.stdout.startswith("beer: no version is live, release 2\npinned to no version")
        assert (again.exit_code, again.stdout) == (
            0,
            "beer: nothing to withdraw; release 2 has no live version\n",
        )
        assert two.store.live_release("beer", two.trusted) is None
        listed = run("list", "beer").stdout
        assert f"{version}  passed\n" in listed
        assert "beer: no version is live; withdrawn by " in listed

    def test_a_withdrawn_version_can_be_released_manually(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005", model="beer")
        two.release_manager.release("beer")
        run("withdraw", "beer", "--release", "1")

        ended = run("release", "beer")

        assert ended.exit_code == 0
        assert two.store.live_release("beer", two.trusted) is not None
