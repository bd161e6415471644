"""What a person does in a browser without scripts."""

import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import httpx
from httpx import AsyncClient

from tests.integration.auth.pages import Page as AuthPage
from tests.integration.console.conftest import AUTH, CONSOLE, EMAIL, PASSWORD

MAX_REDIRECTS = 8
FOREIGN = re.compile(
    r'<style|style=|<img|<script(?! src="/assets/script\.[0-9a-f]{12}\.js" defer></script>)'
    r'|\son\w+="'
)
"""Markup that no page has, whatever texts of others it shows."""


class Form:
    """A form of a page: where it goes, and its fields as they are filled in."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.fields: dict[str, str] = {}


class Shown(HTMLParser):
    """A page of the console as a browser without scripts sees it."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = ""
        self._textarea = ""
        self.links: list[str] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(found["action"]))
        if tag == "a":
            self.links.append(found["href"])
        if tag == "select":
            self._select = found["name"]
        if tag == "option" and ("selected" in found or self._select not in self._fields):
            self._fields[self._select] = found["value"]
        if tag == "textarea":
            self._textarea = found["name"]
        if tag == "input" and self.forms:
            is_box = found.get("type") in ("checkbox", "radio")
            if "name" in found and (not is_box or "checked" in found):
                self._fields[found["name"]] = found.get("value", "on" if is_box else "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self._fields[self._textarea] = data.removeprefix("\n")

    @property
    def _fields(self) -> dict[str, str]:
        return self.forms[-1].fields

    def form(self, action: str) -> Form:
        """Return the form that is sent to a path."""
        return next(each for each in self.forms if each.action == action)


async def follow(browser: AsyncClient, answer: httpx.Response) -> httpx.Response:
    """Follow redirects between the console and auth to a page."""
    for _ in range(MAX_REDIRECTS):
        if answer.status_code != 303:
            return answer
        target = urljoin(str(answer.request.url), answer.headers["Location"])
        assert target.startswith((CONSOLE, AUTH)), target
        answer = await browser.get(target)
    raise AssertionError("too many redirects")


async def visit(browser: AsyncClient, path: str) -> httpx.Response:
    """Open a page of the console, and follow redirects."""
    return await follow(browser, await browser.get(f"{CONSOLE}{path}"))


async def submit(
    browser: AsyncClient, shown: httpx.Response, action: str, /, **fields: str
) -> httpx.Response:
    """Fill in and send a form of a page; without following the redirect."""
    filled = Shown(shown).form(action).fields | fields
    return await browser.post(f"{CONSOLE}{action}", data=filled)


def new_email() -> str:
    """Return an address that nobody has registered."""
    return f"{uuid4().hex}@example.com"


async def sign_up(
    browser: AsyncClient, *, email: str | None = None, name: str = "Ada"
) -> httpx.Response:
    """Register on the page of the console; return the page that follows."""
    shown = await visit(browser, "/sign-up")
    sent = await submit(
        browser, shown, "/sign-up", email=email or new_email(), password=PASSWORD, name=name
    )
    return await follow(browser, sent)


async def sign_in(
    browser: AsyncClient, path: str = "/", *, email: str = EMAIL, password: str = PASSWORD
) -> httpx.Response:
    """Sign in on auth's page on the way to a page of the console; return that page."""
    shown = await visit(browser, f"/sign-in?return_to={path}")
    assert urlsplit(str(shown.request.url)).path == "/authorize", shown.text
    form = AuthPage(shown)
    filled = form.fields | {"email": email, "password": password}
    return await follow(browser, await browser.post(f"{AUTH}{form.actions[0]}", data=filled))


def path_of(answer: httpx.Response) -> str:
    """Return the path and query of a page."""
    parts = urlsplit(str(answer.request.url))
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def text_of(answer: httpx.Response) -> str:
    """Return what a page says, without its markup."""
    body = re.sub(r"(?s)<head>.*?</head>|<wbr>", "", answer.text)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def is_signed_in(answer: httpx.Response) -> bool:
    """Return whether a page shows someone's account menu."""
    return "Signed in as" in answer.text
