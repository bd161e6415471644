"""The locked requirements are complete, so that they can still be installed next month."""

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("functions/*/requirements.txt")])
"""Every lock is part of dev.txt, so its packages are installed where the tests run."""


def pins(lock: Path) -> dict[str, Requirement]:
    """Return the pinned requirement of each package that is needed on this machine."""
    lines = [line.rstrip("\\ ") for line in lock.read_text().splitlines() if line[:1].isalnum()]
    parsed = [Requirement(line) for line in lines]
    return {
        canonicalize_name(pin.name): pin
        for pin in parsed
        if pin.marker is None or pin.marker.evaluate()
    }


def required_by(pin: Requirement) -> list[Requirement]:
    """Return what a pinned package requires here, with the extras that its pin names."""
    wanted = [Requirement(text) for text in requires(pin.name) or []]
    return [
        each
        for each in wanted
        if each.marker is None
        or any(each.marker.evaluate({"extra": extra}) for extra in ("", *pin.extras))
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
class TestLock:
    def test_no_package_is_required_with_an_extra_that_its_pin_lacks(self, lock: Path) -> None:
        pinned = pins(lock)

        lacking = [
            f"{name} requires {needed}, pinned as {own}"
            for name, pin in pinned.items()
            for needed in required_by(pin)
            if (own := pinned.get(canonicalize_name(needed.name))) and needed.extras - own.extras
        ]

        assert pinned
        assert lacking == []

    def test_every_required_package_is_pinned(self, lock: Path) -> None:
        pinned = pins(lock)

        missing = [
            f"{name} requires {needed}"
            for name, pin in pinned.items()
            for needed in required_by(pin)
            if canonicalize_name(needed.name) not in pinned
        ]

        assert missing == []

    def test_it_names_no_package_index(self, lock: Path) -> None:
        assert not re.search(r"https?://|--index-url|--find-links", lock.read_text())
