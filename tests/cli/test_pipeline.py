"""`tollgate models wait` and `withdraw`: a release looked at, and one taken back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.common.worlds import FIRST, SECOND, World
from tests.functions.servers import Answer, serving
from tests.trainer.conftest import Workshop, new_workshop

Run = Callable[..., Result]


@pytest.fixture
def two(tmp_path: Path) -> Workshop:
    """Two versions, the second of them live as release 2."""
    workshop = new_workshop(tmp_path)
    for version in (FIRST, SECOND):
        world_of(workshop).publish(version)
        workshop.promoter.release("wine", version=version)
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
    """A process whose metrics tell of one release after the other, and of the last for good."""
    left = list(releases)

    def answer(_: object) -> Answer:
        number = left.pop(0) if len(left) > 1 else left[0]
        told = f'model_live_release{{model="wine",version="v"}} {number}.0\n'
        return Answer(200, f'{told}model_live_release{{model="beer",version="v"}} 9.0\n'.encode())

    with serving(answer) as url:
        yield url


class TestWait:
    @pytest.mark.parametrize(
        "page",
        [b"<html>no metrics</html>", b'model_live_release{model="wine",version="v"} NaN\n', b"x{"],
    )
    def test_what_answers_with_no_metrics_is_said_not_to_answer(
        self, run: Run, page: bytes
    ) -> None:
        with serving(lambda _: Answer(200, page)) as url:
            outcome = run("wait", "wine", "--release", "2", "--url", url, "--within", "0")

        assert outcome.exit_code == 1
        assert isinstance(outcome.exception, SystemExit)
        assert f"error: {url}" in outcome.stderr

    def test_it_ends_when_every_process_serves_the_release(self, run: Run) -> None:
        with a_process_that_serves(2) as quick, a_process_that_serves(0, 1, 2) as slow:
            ended = run("wait", "wine", "--release", "2", "--url", quick, "--url", f"{slow}/")

        assert (ended.exit_code, ended.stdout) == (0, "wine: 2 serve release 2 or a later one\n")

    def test_a_later_release_will_do(self, run: Run) -> None:
        with a_process_that_serves(3) as url:
            assert run("wait", "wine", "--release", "2", "--url", url).exit_code == 0

    def test_who_is_behind_at_the_end_is_named(self, run: Run) -> None:
        gone = "http://127.0.0.1:1"
        with a_process_that_serves(2) as good, a_process_that_serves(1) as late:
            urls = [word for url in (good, late, gone) for word in ("--url", url)]
            ended = run("wait", "wine", "--release", "2", *urls, "--within", "0")

        assert ended.exit_code == 1
        assert ended.stderr.splitlines() == [
            f"error: {late} serves release 1",
            f"error: {gone} does not say what it serves",
            "error: release 2 of wine is not everywhere",
        ]

    def test_a_release_that_does_not_hold_is_not_waited_for(self, run: Run, two: Workshop) -> None:
        world_of(two).path(SECOND, "model.onnx").flip_bit()

        with a_process_that_serves(2) as url:
            damaged = run("wait", "wine", "--release", "2", "--url", url)
            absent = run("wait", "wine", "--release", "3", "--url", url)

        assert (
            damaged.stderr
            == f"error: The file model.onnx of wine {SECOND} is not the one signed.\n"
        )
        assert absent.stderr == "error: There is no release 3 of wine.\n"
        assert damaged.exit_code == absent.exit_code == 1

    def test_it_must_be_told_whom_to_ask(self, run: Run) -> None:
        assert run("wait", "wine", "--release", "2").exit_code == 2

    def test_a_cluster_that_cannot_be_asked_has_it_nowhere(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")

        ended = run("wait", "wine", "--release", "2", "--pods", "app=x", "--within", "0")

        assert ended.exit_code == 1
        assert ended.stderr.splitlines()[-1] == "error: release 2 of wine is not everywhere"


class TestWithdraw:
    def test_the_release_that_is_live_goes(self, run: Run, two: Workshop) -> None:
        ended = run("withdraw", "wine", "--release", "2", "--reason", "it is slow")

        assert (ended.exit_code, live(two)) == (0, (3, FIRST))
        record = two.store.find_release("wine", 3)
        assert record is not None
        assert (record.action, record.reason) == ("rollback", "it is slow")

    def test_a_second_judge_of_the_same_release_changes_nothing(
        self, run: Run, two: Workshop
    ) -> None:
        outputs = [run("withdraw", "wine", "--release", "2") for _ in range(2)]

        assert [ended.exit_code for ended in outputs] == [0, 0]
        assert outputs[1].stdout == "wine: nothing to withdraw, release 3 is live\n"
        assert live(two) == (3, FIRST)

    def test_nothing_is_done_once_there_is_a_higher_one(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005")
        two.promoter.release("wine")

        assert run("withdraw", "wine", "--release", "2", "--json").exit_code == 0

        assert live(two)[0] == 3

    def test_one_that_never_went_live_is_left(self, run: Run, two: Workshop) -> None:
        world_of(two).path(SECOND, "manifest.json").flip_bit()

        assert run("withdraw", "wine", "--release", "2").exit_code == 0

        assert (two.store.list_releases("wine"), live(two)[0]) == ([1, 2], 1)

    def test_a_rollback_is_never_withdrawn(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005")
        two.promoter.release("wine")
        two.promoter.roll_back("wine")

        assert run("withdraw", "wine", "--release", "4").exit_code == 0

        assert live(two) == (4, SECOND)

    def test_it_comes_too_late_when_another_record_is_written_meanwhile(
        self, two: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rival = two.promoter
        looked: list[int] = []

        class Overtaken(type(two.store)):  # type: ignore[misc]
            """Between the look and the write, somebody else writes."""

            def append_release(self, model: str, *, decide: object) -> object:
                if not looked:
                    looked.append(1)
                    rival.release("wine", version=FIRST)
                return super().append_release(model, decide=decide)

        late = type(rival)(
            store=Overtaken(two.settings.model_store_url), trusted=two.trusted, by="machine"
        )

        decision = late.roll_back("wine", judged=2)

        assert (decision.written, live(two)[0]) == (False, 3)

    def test_the_first_release_has_nothing_to_go_back_to(self, run: Run, two: Workshop) -> None:
        world_of(two).publish("20261125t120000z-00000005", model="beer")
        two.promoter.release("beer")

        ended = run("withdraw", "beer", "--release", "1")

        assert ended.exit_code == 1
        assert ended.stderr.startswith("error: There is no earlier live version of beer")
