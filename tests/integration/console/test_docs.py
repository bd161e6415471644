"""The docs site under /docs, from the folder that `make docs` builds."""

from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from services.console.app import create_app
from services.console.settings import ConsoleSettings


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two pages and a script, beside a file that is not part of it."""
    folder = tmp_path / "site"
    (folder / "leases").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Start</h1>")
    (folder / "leases/index.html").write_text("<h1>Leases</h1>")
    (folder / "search.js").write_text("search()")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def visitor(docs: Path) -> AsyncClient:
    secret = SecretStr("x" * 32)
    console = create_app(ConsoleSettings(home=docs.parent, docs=docs, secret=secret))
    return AsyncClient(transport=ASGITransport(console), base_url="http://console.test")


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("/docs/", "Start", "text/html"),
        ("/docs/leases/", "Leases", "text/html"),
        ("/docs/search.js", "search()", "javascript"),
    ],
)
async def test_pages_and_files_are_served_under_a_strict_policy(
    site: Path, path: str, text: str, kind: str
) -> None:
    async with visitor(site) as browser:
        page = await browser.get(path)

    assert page.status_code == 200
    assert text in page.text
    assert kind in page.headers["content-type"]
    policy = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    assert page.headers["Content-Security-Policy"] == policy


@pytest.mark.parametrize("path", ["/docs", "/docs/leases"])
async def test_a_folder_is_redirected_to_its_slash(site: Path, path: str) -> None:
    async with visitor(site) as browser:
        answer = await browser.get(path)

    assert (answer.status_code, answer.headers["location"]) == (308, f"{path}/")


@pytest.mark.parametrize(
    "path",
    [
        "/docs/none",
        "/docs/%2e%2e/secret.txt",
        "/docs/..%2fsecret.txt",
        "/docs/%00",
        f"/docs/{'x' * 300}",
    ],
)
async def test_nothing_outside_the_site_is_served(site: Path, path: str) -> None:
    async with visitor(site) as browser:
        answer = await browser.get(path)

    assert answer.status_code == 404
    assert "secret" not in answer.text


async def test_without_a_site_there_is_no_link_to_it(tmp_path: Path, site: Path) -> None:
    (tmp_path / "empty").mkdir()

    async with visitor(tmp_path / "empty") as without, visitor(site) as with_it:
        assert (await without.get("/docs/")).status_code == 404
        assert '/docs/"' not in (await without.get("/design")).text
        assert '/docs/"' in (await with_it.get("/design")).text
