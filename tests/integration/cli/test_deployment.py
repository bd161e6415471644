"""`tollgate models wait` and `withdraw`."""

import json
import socket
from typing import Any

import pytest

from cli.serving.cluster import read_document
from harness.http_servers import Response, serving
from harness.stores import FIRST, SECOND
from tests.integration.cli.two_releases import Run, a_process_that_serves, live, signed_store_of
from tests.integration.trainer.conftest import Workshop


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
        signed_store_of(two).path(SECOND, "model.onnx").flip_bit()

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

    @pytest.mark.costly
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
        signed_store_of(two).publish("20261125t120000z-00000005")
        two.release_manager.release("wine")

        assert run("withdraw", "wine", "--release", "2", "--json").exit_code == 0

        assert live(two)[0] == 3

    def test_a_release_that_never_went_live_is_left_alone(self, run: Run, two: Workshop) -> None:
        signed_store_of(two).path(SECOND, "manifest.json").flip_bit()

        assert run("withdraw", "wine", "--release", "2").exit_code == 0

        assert (two.store.list_releases("wine"), live(two)[0]) == ([1, 2], 1)

    def test_a_rollback_is_never_withdrawn(self, run: Run, two: Workshop) -> None:
        signed_store_of(two).publish("20261125t120000z-00000005")
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
        signed_store_of(two).publish(version, model="beer")
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
        signed_store_of(two).publish("20261125t120000z-00000005", model="beer")
        two.release_manager.release("beer")
        run("withdraw", "beer", "--release", "1")

        ended = run("release", "beer")

        assert ended.exit_code == 0
        assert two.store.live_release("beer", two.trusted) is not None
