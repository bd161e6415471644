"""The rivals' folders: an app and pinned requirements for each."""

import re
from pathlib import Path

import pytest

from bench.rivals import environments
from bench.rivals.catalogue import RIVALS, Rival
from bench.rivals.environments import APPS, NotBuilt, python_of
from harness.programs import ROOT

ROWS = [[1.0, 2.0]]


@pytest.mark.parametrize("folder", sorted({rival.folder for rival in RIVALS}))
def test_a_rival_has_an_app_and_exact_pins_only(folder: str) -> None:
    pins = (APPS / folder / "requirements.txt").read_text().splitlines()

    assert (APPS / folder / "app.py").exists()
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*(\[\w+\])?==[\w.]+", pin) for pin in pins)
    assert {rival.package for rival in RIVALS if rival.folder == folder} <= {
        re.split(r"[\[=]", pin)[0] for pin in pins
    }


@pytest.mark.parametrize("package", ["scikit-learn", "onnxruntime"])
def test_all_compute_with_the_version_that_the_project_pins(package: str) -> None:
    pin = re.compile(rf"^{package}==(\S+)", re.MULTILINE)
    files = [*APPS.glob("*/requirements.txt"), ROOT / "requirements/dev.txt"]

    versions = {version for file in files for version in pin.findall(file.read_text())}

    assert len(versions) == 1


def test_rivals_have_different_names() -> None:
    assert len({rival.name for rival in RIVALS}) == len(RIVALS)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_a_request_contains_the_row_in_the_native_format(rival: Rival) -> None:
    assert "1.0, 2.0" in str(rival.format.body(ROWS))


def test_a_failed_installation_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rival").mkdir()
    (tmp_path / "rival/requirements.txt").write_text("not a requirement\n")
    monkeypatch.setattr(environments, "APPS", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "environments")

    with pytest.raises(NotBuilt) as caught:
        python_of("rival")

    assert "\n" not in str(caught.value)
    assert str(caught.value)
