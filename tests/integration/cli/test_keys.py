"""`tollgate keys`: its output, and the files that it writes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import keys


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))


def run(*words: str) -> Result:
    return CliRunner().invoke(keys, list(words))


def test_create_makes_a_key_once() -> None:
    first, again = (json.loads(run("create", "--json").stdout) for _ in range(2))

    assert (first["made"], again["made"]) == (True, False)
    assert first["id"] == again["id"]


def test_list_is_empty_before_there_is_a_key() -> None:
    assert run("list", "--json").stdout == "[]\n"
    assert "tollgate keys create" in run("list").stdout


def test_rotate_keeps_the_old_key_trusted_and_explains_how_to_retire_it() -> None:
    old = json.loads(run("create", "--json").stdout)

    output = run("rotate").stdout

    listed = json.loads(run("list", "--json").stdout)
    assert [(key["id"] == old["id"], key["signs"]) for key in listed] == [
        (True, False),
        (False, True),
    ]
    assert f"rm {old['file']}" in output
    Path(old["file"]).unlink()
    assert [key["id"] for key in json.loads(run("list", "--json").stdout)] == [listed[1]["id"]]


def test_a_rotation_without_a_key_is_one_line_and_exit_code_1() -> None:
    result = run("rotate")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_configured_signing_key_needs_a_folder_of_trusted_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINER_SIGNING_KEY", str(tmp_path / "secret.pem"))
    assert "TRAINER_TRUSTED_KEYS" in run("create").stderr

    monkeypatch.setenv("TRAINER_TRUSTED_KEYS", str(tmp_path / "public"))
    made = json.loads(run("create", "--json").stdout)

    assert Path(made["file"]).parent == tmp_path / "public"
    assert (tmp_path / "secret.pem").exists()
    monkeypatch.setenv("TRAINER_TRUSTED_KEYS", made["file"])
    assert "folder" in run("rotate").stderr
