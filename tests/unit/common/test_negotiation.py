"""`Accept` decides between JSON and HTML, by RFC 9110 §12.5.1."""

import pytest

from services.common.http.negotiation import choose_media_type

JSON, HTML = "application/json", "text/html"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        (HTML, HTML),
        (JSON, JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
        ("text/html;q=0.5, application/json", JSON),
        ("text/html, application/json;q=0.9", HTML),
        ("application/json, text/html", JSON),
        ("text/*", HTML),
        ("text/html;q=0, */*", JSON),
        ("application/json;q=0, */*", HTML),
        ("application/*;q=0.1, */*;q=0.2", HTML),
        ("TEXT/HTML; Q=1.0", HTML),
        ("text/html;level=1;q=0.9, application/json;q=0.2", HTML),
        ("image/png", JSON),
        ("text/html;q=nonsense, application/json;q=0.1", JSON),
        ("text/html;q=2", JSON),
        ("text/html;q=nan", JSON),
        ("html, , ;;, /, */html", JSON),
    ],
)
def test_the_most_preferred_type_is_chosen(accept: str, expected: str) -> None:
    assert choose_media_type(accept, (JSON, HTML)) == expected
