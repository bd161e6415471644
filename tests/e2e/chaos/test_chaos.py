"""A short run of `python -m chaos` itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.run import run


@pytest.mark.chaos
@pytest.mark.slow
def test_served_equals_journalled_equals_billed(
    new_home: Callable[[], Path],
) -> None:
    report = run(seed=20261122, seconds=12, home=new_home(), say=print)

    assert report.differences == []
    assert report.served == report.billed > 0
    assert report.journalled >= report.served
    assert report.kills
