"""Many rows in the playground: a CSV that is chosen as a file or pasted."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from httpx import AsyncClient

from tests.integration.console.conftest import CONSOLE, World
from tests.integration.console.hostile_models import HOSTILE, MODEL, hostile_inference
from tests.integration.console.visits import (
    FOREIGN,
    Shown,
    follow,
    path_of,
    sign_up,
    text_of,
    visit,
)

PAGE, ROWS = f"/models/{MODEL}", f"/models/{MODEL}/rows"
TABLE = b"a,b\n1,2\n3,4\n"


@pytest.fixture
def inference(world: World) -> FastAPI:
    """An inference service that answers every CSV, and keeps its bytes in `state.sent`."""
    app = hostile_inference()
    app.router.routes[:] = [
        each for each in app.router.routes if "{call}" not in getattr(each, "path", "")
    ]

    @app.post("/v1/models/{call}")
    async def predict(call: str, request: Request, response: Response) -> Any:
        body = await request.body()
        app.state.sent.append((request.headers["idempotency-key"], body))
        if app.state.problem is not None:
            return app.state.problem
        response.headers["X-Usage-Amount"] = "0.0025 USD"
        response.headers["X-Usage-Event"] = "0198a000"
        return {"predictions": [HOSTILE] * body.count(b"\n")}

    world.services["inference"] = app
    return app


@pytest.fixture
async def signed_in(inference: FastAPI, browser: AsyncClient) -> AsyncClient:
    await sign_up(browser)
    return browser


async def send(
    browser: AsyncClient,
    shown: httpx.Response,
    content: bytes | None,
    *,
    name: str = "wine.csv",
    **fields: str,
) -> httpx.Response:
    """Send the form of many rows, with a file or without."""
    filled = Shown(shown).form(ROWS).fields | fields
    filled.pop("file", None)
    files = {"file": (name, content, "text/csv")} if content is not None else {"file": ("", b"")}
    return await browser.post(f"{CONSOLE}{ROWS}", data=filled, files=files)


async def test_the_rows_of_a_file_are_predicted_and_can_be_downloaded(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    page = await send(signed_in, shown, b"\xef\xbb\xbf" + TABLE * 20)

    [(_, body)] = inference.state.sent
    assert (page.status_code, body) == (200, TABLE * 20)
    assert "wine.csv" in text_of(page)
    assert "Cost $0.0025" in text_of(page)
    assert "40 more rows in the file" in text_of(page)
    assert 'href="data:text/csv;charset=utf-8;base64,' in page.text
    assert not FOREIGN.search(page.text)


async def test_rows_that_are_pasted_are_predicted_and_kept(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    with_files = await send(signed_in, shown, None, csv=TABLE.decode())
    filled = Shown(shown).form(ROWS).fields | {"csv": TABLE.decode()}
    plain = await signed_in.post(f"{CONSOLE}{ROWS}", data=filled)

    assert [body for _, body in inference.state.sent] == [TABLE, TABLE]
    assert (with_files.status_code, plain.status_code) == (200, 200)
    assert Shown(with_files).form(ROWS).fields["csv"] == TABLE.decode()


async def test_a_file_that_is_sent_twice_has_the_same_key(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    for _ in range(2):
        page = await send(signed_in, shown, TABLE)
    await send(signed_in, page, TABLE)

    keys = [key for key, _ in inference.state.sent]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "Choose a file, or paste rows below."),
        (b"", "This is empty."),
        ("a,b\nä,1\n".encode("latin-1"), "This is not text in UTF-8."),
        (b"PK\x03\x04", "This is a spreadsheet or an archive."),
        (b"a,b\n" + b"1,2\n" * 62_500, "This is larger than 250 KB."),
        (b"x" * 3_000_000, "This is larger than 250 KB."),
    ],
)
async def test_what_is_wrong_with_a_file_is_said_beside_it_and_nothing_is_called(
    signed_in: AsyncClient, inference: FastAPI, content: bytes | None, why: str
) -> None:
    shown = await visit(signed_in, PAGE)

    page = await send(signed_in, shown, content)

    assert page.status_code == 422
    assert f'id="f-file-error">{why}' in page.text
    assert page.text.count('aria-invalid="true"') == 1
    assert inference.state.sent == []


@pytest.mark.parametrize(("content", "field"), [(TABLE, "file"), (None, "csv")])
async def test_what_inference_refuses_is_said_beside_where_it_came_from(
    signed_in: AsyncClient, inference: FastAPI, content: bytes | None, field: str
) -> None:
    errors = [
        {"loc": ["header", "alcohol"], "msg": "Missing column."},
        {"loc": ["header", HOSTILE], "msg": "Unknown column."},
    ]
    problem = {"type": "urn:tollgate:problem:invalid_input", "detail": "Wrong.", "errors": errors}
    inference.state.problem = JSONResponse(problem, status_code=422)
    shown = await visit(signed_in, PAGE)

    page = await send(signed_in, shown, content, csv="" if content else "a\n1\n")

    assert page.status_code == 422
    assert f'id="f-{field}-error">Missing column: alcohol. Unknown column: ' in page.text
    assert not FOREIGN.search(page.text)


async def test_a_file_without_the_sessions_token_is_refused(
    signed_in: AsyncClient, inference: FastAPI
) -> None:
    shown = await visit(signed_in, PAGE)

    wrong = await send(signed_in, shown, TABLE, csrf="x")
    two = await signed_in.post(
        f"{CONSOLE}{ROWS}", files=[("file", ("a", TABLE)), ("file", ("b", TABLE))]
    )
    broken = await signed_in.post(
        f"{CONSOLE}{ROWS}", content=b"x", headers={"Content-Type": "multipart/form-data"}
    )

    assert (wrong.status_code, two.status_code, broken.status_code) == (403, 400, 400)
    assert inference.state.sent == []


async def test_the_address_of_a_result_leads_back_to_the_model(signed_in: AsyncClient) -> None:
    page = await follow(signed_in, await signed_in.get(f"{CONSOLE}{ROWS}"))

    assert (page.status_code, path_of(page)) == (200, PAGE)
