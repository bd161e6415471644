"""The page of a model: its versions, a canary's progress, and commands for each state."""

import re
import shlex
from html import unescape

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response

from tests.integration.console.hostile_models import HOSTILE, MODEL
from tests.integration.console.visits import text_of, visit

NEW = "20261122t000000z-0a1b2c3d"
METRICS = f"""
tollgate_model_canary_percent{{model="{MODEL}",version="{NEW}"}} 5.0
tollgate_canary_requests_total{{model="{MODEL}",outcome="answered",version="{NEW}"}} 30.0
tollgate_canary_requests_total{{model="{MODEL}",outcome="failed",version="{NEW}"}} 2.0
"""


@pytest.fixture(autouse=True)
def another_version(inference: FastAPI) -> None:
    """A version that was never live, beside the live one."""
    new = {"name": MODEL, "version": NEW, "state": "UNAVAILABLE", "reason": "", "live": False}
    inference.state.versions = [*inference.state.versions, new]


async def model_page(browser: AsyncClient) -> Response:
    return await visit(browser, f"/admin/models/{MODEL}")


def commands(page: Response) -> list[list[str]]:
    """Return the words of every command that the page shows."""
    text = re.sub("</?span>", "", page.text)
    texts = unescape(text).split("<code>tollgate models ")[1:]
    return [shlex.split(text.split("</code>")[0]) for text in texts]


async def test_each_version_has_the_commands_of_its_state(administrator: AsyncClient) -> None:
    page = await model_page(administrator)

    found = commands(page)
    assert ["release", MODEL, "--to", NEW, "--reason", "say why"] in found
    assert ["canary", MODEL, "--to", NEW, "--percent", "5"] in found
    assert ["withdraw", MODEL, "--release", "3", "--reason", "say why"] in found
    assert not any(words[0] == "release" and HOSTILE in words for words in found)
    assert 'data-testid="canary"' not in page.text


async def test_a_running_canary_shows_its_progress_and_how_it_ends(
    administrator: AsyncClient, inference: FastAPI
) -> None:
    inference.state.metrics = METRICS

    page = await model_page(administrator)

    shown = text_of(page)
    assert "5 % of callers" in shown
    assert "after 50 requests; 32 so far" in shown
    assert "2 (6.2%); the live version answered instead" in shown
    assert ["release", MODEL, "--to", NEW, "--reason", "say why"] in commands(page)
    assert ["canary", MODEL, "--to", NEW, "--percent", "25"] in commands(page)
    assert ["canary", MODEL, "--off"] in commands(page)


async def test_a_judged_canary_says_from_how_many_requests(
    administrator: AsyncClient, inference: FastAPI
) -> None:
    inference.state.metrics = METRICS.replace("30.0", "1234.0")

    assert "all the time, from 1,236 requests" in text_of(await model_page(administrator))
