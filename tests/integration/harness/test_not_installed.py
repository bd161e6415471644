"""A test whose program is not installed is skipped, but not under CI."""

import pytest

from harness.programs import NotInstalled, find_program
from tests.conftest import pytest_runtest_setup


@pytest.fixture
def error() -> NotInstalled:
    with pytest.raises(NotInstalled) as missing:
        find_program("no-such-program", "nor-this-one", advice="scripts/tools.sh builds it")
    return missing.value


def test_the_message_names_the_programs_and_the_remedy(error: NotInstalled) -> None:
    assert (
        str(error) == "no-such-program or nor-this-one is not installed; scripts/tools.sh builds it"
    )


def test_the_test_is_skipped(error: NotInstalled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    hook = pytest_runtest_setup()
    next(hook)

    with pytest.raises(pytest.skip.Exception, match="is not installed"):
        hook.throw(error)


def test_the_test_fails_under_ci(error: NotInstalled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    hook = pytest_runtest_setup()
    next(hook)

    with pytest.raises(NotInstalled):
        hook.throw(error)
