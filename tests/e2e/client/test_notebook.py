"""The notebook for buyers runs from top to bottom against a running platform."""

import json
from typing import Any

import pandas as pd
import pytest

from harness.platform import Platform
from harness.programs import ROOT
from harness.waiting import eventually

NOTEBOOK = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_stores_no_output() -> None:
    assert NOTEBOOK["nbformat"] == 4
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert [cell for cell in CODE if cell["outputs"] or cell["execution_count"]] == []


def test_every_cell_runs(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_URL", platform.urls["billing"])
    monkeypatch.delenv("TOLLGATE_API_KEY", raising=False)
    names: dict[str, Any] = {}

    for number, cell in enumerate(CODE, start=1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)

    assert names["prediction"].predictions == [0]
    assert isinstance(names["answers"], pd.DataFrame)
    assert len(names["explained"].explanations) == 2
    with names["tollgate"] as tollgate:
        eventually(lambda: tollgate.usage()["total"]["requests"] == 4)
