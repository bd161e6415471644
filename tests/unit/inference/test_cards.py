"""Cards, pages and OpenAPI documents of models, from manifests with every kind of fault."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from harness.stores import FIRST, SECOND, manifest
from registry.deprecations import Deprecation
from registry.records import ColumnStatistics, Manifest, Statistics
from services.inference.catalogue.card import CardRead, build_card
from services.inference.catalogue.columns import describe_columns
from services.inference.catalogue.history import ReleasedVersion
from services.inference.catalogue.page import card_headers, render_card
from services.inference.catalogue.prices import PublicPlan, find_price

DAY = datetime(2026, 11, 22, tzinfo=UTC)
NAUGHTY = "</style><script src=//evil.example>alert(1)</script>\"'&\u202e"


def with_columns(*columns: dict[str, Any], **changes: Any) -> Manifest:
    """Return a manifest with these columns and statistics of them."""
    found = [ColumnStatistics.model_validate({"count": 100, "missing": 0.0} | c) for c in columns]
    base = manifest(FIRST)
    named = [{"name": each.name, "kind": each.kind} for each in found]
    signature = base.signature.model_dump() | {"columns": named} | changes.pop("signature", {})
    return Manifest.model_validate(
        base.model_dump()
        | {
            "signature": signature,
            "statistics": Statistics(columns=found, target=found[0], predictions=found[0]),
            **changes,
        }
    )


def card_of(described: Manifest, **changes: Any) -> CardRead:
    options: dict[str, Any] = {
        "versions": [ReleasedVersion(described.version, DAY)],
        "deprecations": {},
        "price": find_price(None, described.model),
    }
    return build_card(described, **(options | changes))


class TestColumns:
    def test_a_number_has_its_range_and_a_typical_example(self) -> None:
        number = {
            "name": "age", "kind": "number", "missing": 0.25, "min": 18.0, "max": 99.5,
            "mean": 41.7, "edges": [30.0, 40.0, 50.0],
        }  # fmt: skip

        [column] = describe_columns(with_columns(number))

        assert (column.min, column.max, column.missing) == (18.0, 99.5, 0.25)
        assert column.example == 40
        assert column.description == "A number. In training: 18 to 99.5; 25.0% missing."

    def test_categories_of_few_rows_are_not_shown(self) -> None:
        text = {
            "name": "name", "kind": "text", "categories": ["Smith", "Ng", "Oyelaran"],
            "shares": [0.9, 0.05, 0.04, 0.01],
        }  # fmt: skip
        rare = {"name": "note", "kind": "text", "categories": ["secret"], "shares": [0.01, 0.99]}

        shown, hidden = describe_columns(with_columns(text, rare))

        assert shown.categories == ["Smith", "Ng"]
        assert (hidden.categories, hidden.example) == ([], "text")
        assert "secret" not in hidden.model_dump_json()

    def test_without_statistics_only_the_kinds_are_known(self) -> None:
        [column] = describe_columns(manifest(FIRST))

        assert (column.description, column.missing, column.example) == ("A number.", None, 1.0)


class TestPrice:
    PLANS = (
        {"name": "Old", "default": False, "prices": [("wine", "9")]},
        {"name": "Usual", "default": True, "prices": [(None, "1"), ("wine", "2")]},
    )

    def plans(self, *given: dict[str, Any]) -> list[PublicPlan]:
        return [
            PublicPlan.model_validate(
                {
                    **plan,
                    "currency": "USD",
                    "billing": "postpaid",
                    "prices": [
                        {
                            "model": model,
                            "tiers": [
                                {"up_to_requests": None, "per_request": amount, "per_row": "0"}
                            ],
                        }
                        for model, amount in plan["prices"]
                    ],
                }
            )
            for plan in given
        ]

    @pytest.mark.parametrize(("model", "amount"), [("wine", "2"), ("beer", "1")])
    def test_is_that_of_the_default_plan(self, model: str, amount: str) -> None:
        price = find_price(self.plans(*self.PLANS), model)

        assert (price.status, price.plan) == ("available", "Usual")
        assert price.tiers is not None
        assert price.tiers[0].per_request == amount

    def test_is_not_offered_without_a_default_plan_or_a_price_in_it(self) -> None:
        only_old = self.plans(self.PLANS[0])
        only_wine = self.plans({**self.PLANS[0], "default": True})

        assert find_price(only_old, "wine").status == "not_offered"
        assert find_price(only_wine, "beer").status == "not_offered"
        assert find_price(only_wine, "wine").status == "available"

    def test_of_an_explanation_is_listed_if_the_plan_has_one(self) -> None:
        own = {**self.PLANS[1], "prices": [("wine", "2"), ("wine:explain", "7")]}

        price = find_price(self.plans(own), "wine")
        page = render_card(card_of(manifest(FIRST), price=price))

        assert price.explanation is not None
        assert price.explanation.tiers[0].per_request == "7"
        assert "<td>2</td>" in page
        assert "<td>7</td>" in page
        assert find_price(self.plans(self.PLANS[1]), "wine").explanation is None

    def test_is_unavailable_while_the_plans_are_unknown(self) -> None:
        assert find_price(None, "wine").status == "unavailable"


class Tags(HTMLParser):
    """Collects the tags of a page, and what its attributes refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.references: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]


class TestPage:
    def test_every_hostile_text_is_escaped(self) -> None:
        text = {"name": NAUGHTY, "kind": "text", "categories": [NAUGHTY], "shares": [1.0, 0.0]}
        described = with_columns(
            text,
            signature={"target": NAUGHTY, "classes": [NAUGHTY, "x"]},
            card={"title": NAUGHTY, "summary": NAUGHTY, "limitations": [NAUGHTY]},
            metrics={"candidate": {NAUGHTY: 1.0}, "dummy": {}, "metric": NAUGHTY},
        )

        page = render_card(card_of(described))

        tags = Tags(page)
        assert "script" not in tags.names
        assert tags.names.count("style") == page.count("</style>") == 1
        assert tags.references == ["/v1/models/wine/openapi.json"]
        assert "&lt;/style&gt;" in page

    def test_the_policy_allows_its_own_style_only(self) -> None:
        headers = card_headers()

        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        page = render_card(card_of(manifest(FIRST)))
        assert not re.search(r"style=|https?:|onload|<script", page)

    def test_has_what_readers_and_screen_readers_need(self) -> None:
        page = render_card(card_of(manifest(FIRST, card={"title": "Wine", "public": True})))

        tags = Tags(page)
        assert '<html lang="en">' in page
        assert "<title>Wine</title>" in page
        assert tags.names.count("h1") == tags.names.count("main") == 1
        assert tags.names.count("caption") == tags.names.count("table")
        assert "prefers-color-scheme: dark" in page
        assert "Price unavailable" in page

    def test_shows_deprecations_and_a_forced_gate(self) -> None:
        described = manifest(SECOND, gate="forced", forced_reason="urgent, ask Ada")
        deprecation = Deprecation(DAY, datetime(2999, 1, 31, tzinfo=UTC), "ada@lab", "private")
        versions = [ReleasedVersion(SECOND, DAY), ReleasedVersion(FIRST, DAY)]

        card = card_of(described, versions=versions, deprecations={FIRST: deprecation})
        page = render_card(card)

        assert [each.live for each in card.versions] == [True, False]
        assert card.versions[1].sunset == deprecation.sunset
        assert 'deprecated, sunset <time datetime="2999-01-31T00:00:00+00:00">' in page
        assert "did not pass its quality gate" in page
        assert not {"ada@lab", "private", "urgent, ask Ada"} & set(re.split(r"[<>]", page))

    def test_a_manifest_with_the_least_in_it_has_a_card(self) -> None:
        card = card_of(manifest(FIRST))

        assert (card.title, card.public, card.metrics.this_version) == ("wine", False, {})
        assert "Not measured." in render_card(card)
