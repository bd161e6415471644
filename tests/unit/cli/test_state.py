import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.local import state


def test_credentials_are_created_once_and_private(tmp_path: Path) -> None:
    first = state.credentials(tmp_path)
    again = state.credentials(tmp_path)

    file = tmp_path / "credentials.json"
    assert first == again == json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["credentials.json"]


def test_credentials_differ_between_installations(tmp_path: Path) -> None:
    here, there = state.credentials(tmp_path / "a"), state.credentials(tmp_path / "b")

    assert here["admin"]["password"] != there["admin"]["password"]
    assert here["services"]["inference"] != there["services"]["inference"]


def test_concurrent_calls_get_the_same_credentials(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: state.credentials(tmp_path), range(32)))

    assert all(credentials == found[0] for credentials in found)


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"admin": {}}'])
def test_a_damaged_credentials_file_is_reported_and_kept(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "credentials.json").write_text(damaged)

    with pytest.raises(state.StateError, match=r"credentials\.json is damaged"):
        state.credentials(tmp_path)

    assert (tmp_path / "credentials.json").read_text() == damaged


def test_a_state_folder_is_locked_by_one_process(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"

    with (
        state.opened(home),
        pytest.raises(state.InUse, match="another `tollgate up`"),
        state.opened(home),
    ):
        pass

    with state.opened(home):
        assert home.is_dir()


def test_a_state_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(state.StateError, match="TOLLGATE_HOME: cannot write to"),
        state.opened(tmp_path / "file" / "home"),
    ):
        pass
