"""What a response says of an invalid request: each field once, by its own name, in plain words."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.common.contracts import AccountId, Currency
from services.common.validation import explain


class Tier(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: str

    @field_validator("price")
    @classmethod
    def _has_digits(cls, price: str) -> str:
        if not price.isdigit():
            raise ValueError("must be digits")
        return price


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)] = (Tier(price="1"),)
    plan: Annotated[str, Field(min_length=1)] | Tier = "any"
    account: AccountId | None = None
    currency: Currency | None = None


def reasons(body: Any) -> list[tuple[list[Any], str]]:
    """Return what is wrong with an order."""
    with pytest.raises(ValidationError) as caught:
        Order.model_validate(body)
    entries = [{**entry, "loc": ("body", *entry["loc"])} for entry in caught.value.errors()]
    return [(entry["loc"], entry["msg"]) for entry in explain(entries, body=body)]


def test_a_check_of_our_own_has_no_prefix_and_its_list_is_not_called_too_short() -> None:
    assert reasons({"tiers": [{"price": "x"}]}) == [
        (["body", "tiers", 0, "price"], "must be digits")
    ]


def test_a_list_that_is_too_short_is_called_so() -> None:
    [(loc, message)] = reasons({"tiers": []})

    assert loc == ["body", "tiers"]
    assert "at least 1 item" in message


def test_the_members_of_a_union_are_not_named() -> None:
    found = reasons({"plan": {"price": "1", "more": 2}})

    assert [loc for loc, _ in found] == [["body", "plan"], ["body", "plan", "more"]]


def test_a_missing_field_is_named_within_a_union_too() -> None:
    assert (["body", "plan", "price"], "Field required") in reasons({"plan": {}})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"account": "mine"}, "Must be a UUID in lower case."),
        ({"currency": "usd"}, "Must be three capital letters, such as USD."),
    ],
)
def test_a_pattern_is_explained_in_words(body: dict[str, str], message: str) -> None:
    assert reasons(body) == [(["body", *body], message)]


def test_what_is_not_an_object_is_asked_to_be_one() -> None:
    assert reasons({"tiers": [7]}) == [(["body", "tiers", 0], "Must be a JSON object.")]
    assert reasons("text") == [(["body"], "Must be a JSON object.")]


def test_a_body_of_another_media_type_is_asked_to_be_json() -> None:
    entry = {"type": "model_attributes_type", "loc": ("body",), "msg": "no"}

    [explained] = explain([entry, entry], body=b"a=b")

    assert explained["loc"] == ["body"]
    assert "Content-Type: application/json" in explained["msg"]


def test_the_same_is_said_once() -> None:
    entry = {"type": "missing", "loc": ("body",), "msg": "Field required"}

    assert explain([entry, entry], body=None) == [{"loc": ["body"], "msg": "Field required"}]


def test_a_long_or_unprintable_name_is_shortened_and_escaped() -> None:
    entry = {"type": "extra_forbidden", "loc": ("query", "\n" + "é" * 200), "msg": "no"}

    [(_, name)] = [each["loc"] for each in explain([entry], body=None)]

    assert name.isascii()
    assert name.isprintable()
    assert name.startswith("\\n\\xe9")
