"""`card` in `dataset.json`: what it may contain, and the one line for what it must not."""

import json
from typing import Any

import pytest

from registry.cards import Card
from trainer.data.config import parse_dataset_config
from trainer.errors import DataError


def parse(card: Any) -> Card | None:
    settings = parse_dataset_config(json.dumps({"card": card}).encode()).card
    return settings.card if settings else None


def test_a_card_is_private_unless_it_says_otherwise() -> None:
    assert parse({}) == Card(public=False, title="", summary="", limitations="")
    assert parse(None) is None


@pytest.mark.parametrize("limitations", ["For adults.", ["For adults.", "Not for\nlending."]])
def test_limitations_are_a_text_or_a_list_of_texts(limitations: Any) -> None:
    card = parse({"public": True, "title": " Churn ", "limitations": limitations})

    assert card == Card(public=True, title="Churn", limitations=limitations)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ([], "card: Input should be an object."),
        ({"public": "yes"}, "card.public: Input should be a valid boolean."),
        ({"titel": "x"}, "card.titel: Extra inputs are not permitted."),
        ({"title": "a\nb"}, "card.title: must be one line."),
        ({"title": "x" * 101}, "card.title: String should have at most 100 characters."),
        ({"summary": 5}, "card.summary: Input should be a valid string."),
        ({"summary": "\a"}, "card.summary: must not contain control characters."),
        ({"title": "a\u202eb"}, "card.title: must not contain control characters."),
        (
            {"limitations": ["x", 5]},
            "card.limitations: must be a text of at most 2000 characters, or a list of at most 20 "
            "such texts.",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(card: Any, message: str) -> None:
    with pytest.raises(DataError) as raised:
        parse(card)

    assert str(raised.value) == f"dataset.json: {message}"
