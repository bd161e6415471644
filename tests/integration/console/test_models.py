"""The catalogue, the page of a model, and its playground."""

from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from httpx import AsyncClient

from tests.integration.console.conftest import CONSOLE, World
from tests.integration.console.hostile_models import HOSTILE, MODEL, RESERVED, hostile_inference
from tests.integration.console.visits import Shown, follow, sign_up, text_of, visit

PAGE = f"/models/{MODEL}"


@pytest.fixture
def inference(world: World) -> FastAPI:
    world.services["inference"] = hostile_inference()
    return world.services["inference"]


@pytest.fixture
async def signed_in(inference: FastAPI, browser: AsyncClient) -> AsyncClient:
    await sign_up(browser)
    return browser


def assert_no_markup(text: str) -> None:
    """Check that nothing of a hostile text became markup."""
    assert "<script>" not in text
    assert "<img" not in text
    assert "onerror=alert(1)>" not in text.replace("onerror=alert(1)&gt;", "")
    assert "{{ 7*7 }}" in text


@pytest.mark.usefixtures("inference")
async def test_the_catalogue_shows_every_public_model_with_its_price(browser: AsyncClient) -> None:
    page = await visit(browser, "/")

    assert_no_markup(page.text)
    assert HOSTILE in " ".join(text_of(page).split())
    assert "$0.0005 per request + $0.0001 per row" in text_of(page)
    assert PAGE in Shown(page).links


@pytest.mark.usefixtures("inference")
async def test_a_visitor_reads_about_a_model_and_is_asked_to_sign_in_to_try_it(
    browser: AsyncClient,
) -> None:
    page = await visit(browser, PAGE)

    assert page.status_code == 200
    assert_no_markup(page.text)
    assert "Sign in to predict" in text_of(page)
    assert f"/sign-in?return_to=/models/{MODEL}" in Shown(page).links


async def test_the_form_is_filled_with_a_typical_row(signed_in: AsyncClient) -> None:
    page = await visit(signed_in, PAGE)

    fields = Shown(page).forms[-2].fields
    assert fields[HOSTILE] == HOSTILE
    assert fields[f"column.{RESERVED}"] == "1.5"
    assert fields["flag"] == "true"


async def test_a_prediction_shows_its_result_its_probabilities_and_its_cost(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    page = await _submit(signed_in, shown, action="predict")

    [(call, key, body)] = inference.state.sent
    assert (call, page.status_code) == (f"{MODEL}:predict", 200)
    assert key
    assert body["instances"] == [{HOSTILE: HOSTILE, RESERVED: 1.5, "flag": True}]
    assert_no_markup(page.text)
    assert 'data-testid="predict-result"' in page.text
    assert "75.0%" in text_of(page)
    assert "Cost $0.0006" in text_of(page)


async def test_an_explanation_is_drawn_and_its_cost_named(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    page = await _submit(signed_in, shown, action="explain")

    assert [call for call, _, _ in inference.state.sent] == [f"{MODEL}:predict", f"{MODEL}:explain"]
    assert_no_markup(page.text)
    assert "$0.0006 + $0.0006 for the explanation" in text_of(page)


async def test_a_form_that_is_sent_twice_has_the_same_key(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    for _ in range(2):
        await _submit(signed_in, shown, action="predict")
    again = await visit(signed_in, PAGE)
    await _submit(signed_in, again, action="predict")

    keys = [key for _, key, _ in inference.state.sent]
    assert keys[0] == keys[1] != keys[2]


async def test_what_is_wrong_is_beside_its_column_and_the_rest_is_kept(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    errors = [
        {"loc": ["body", "instances", 0, RESERVED], "msg": "Must be a number."},
        {"loc": ["body", "instances", 0, HOSTILE], "msg": HOSTILE},
    ]
    problem = {"type": "urn:tollgate:problem:invalid_input", "detail": "Wrong.", "errors": errors}
    inference.state.problem = JSONResponse(problem, status_code=422)
    shown = await visit(signed_in, PAGE)

    page = await _submit(signed_in, shown, {f"column.{RESERVED}": "x"}, action="predict")

    assert page.status_code == 422
    assert_no_markup(page.text)
    assert page.text.count('aria-invalid="true"') == 2
    assert "Must be a number." in text_of(page)
    assert Shown(page).forms[-2].fields[f"column.{RESERVED}"] == "x"


@pytest.mark.parametrize(
    ("status", "detail"),
    [(402, "No credit is left."), (429, "Over the rate limit."), (403, "Not allowed.")],
)
async def test_a_refusal_is_shown_in_words(
    signed_in: AsyncClient, inference: FastAPI, status: int, detail: str
) -> None:
    problem = {"type": "urn:tollgate:problem:x", "detail": detail}
    inference.state.problem = JSONResponse(problem, status_code=status)
    shown = await visit(signed_in, PAGE)

    page = await _submit(signed_in, shown, action="predict")

    assert page.status_code == status
    assert detail in text_of(page)


async def test_a_session_that_ends_meanwhile_changes_nothing_and_is_explained(
    world: World, signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)
    signed_in.cookies.delete("__Host-tollgate-console")

    page = await follow(signed_in, await _submit(signed_in, shown, action="predict"))

    assert "nothing was changed" in text_of(page)
    assert inference.state.sent == []


@pytest.mark.parametrize("path", ["/models/unknown", "/models/a%2Fb", "/models/%3Cscript%3E"])
@pytest.mark.usefixtures("inference")
async def test_an_unknown_model_is_not_found(browser: AsyncClient, path: str) -> None:
    page = await visit(browser, path)

    assert page.status_code == 404
    assert "<script>" not in page.text


async def test_while_inference_is_away_the_page_says_so(world: World, browser: AsyncClient) -> None:
    catalogue = await visit(browser, "/")
    page = await visit(browser, PAGE)

    assert (catalogue.status_code, page.status_code) == (200, 503)
    assert all("Inference is unavailable" in text_of(each) for each in (catalogue, page))


@pytest.mark.usefixtures("inference")
async def test_while_billing_is_away_models_are_shown_without_prices(
    world: World, browser: AsyncClient
) -> None:
    world.away.add("billing")

    pages = [await visit(browser, path) for path in ("/", PAGE)]

    assert [page.status_code for page in pages] == [200, 200]
    assert all("Price unavailable" in text_of(page) for page in pages)


async def _submit(
    browser: AsyncClient,
    shown: httpx.Response,
    changed: Mapping[str, str] | None = None,
    **fields: str,
) -> httpx.Response:
    """Send the playground's form."""
    filled = Shown(shown).form(PAGE).fields | dict(changed or {}) | fields
    return await browser.post(f"{CONSOLE}{PAGE}", data=filled)
