"""Cursors of lists."""

import pytest

from services.billing.cursors import from_cursor, to_cursor
from services.common.errors import BodyInvalid


def test_a_cursor_has_its_parts() -> None:
    assert from_cursor(to_cursor("2026-10", "id"), parts=2) == ["2026-10", "id"]


@pytest.mark.parametrize("cursor", ["", "!", "ä", "YQ", to_cursor("a"), to_cursor("a", "b", "c")])
def test_anything_else_is_invalid(cursor: str) -> None:
    with pytest.raises(BodyInvalid):
        from_cursor(cursor, parts=2)
