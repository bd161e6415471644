"""Auth's pages as a browser without scripts sees them, and what a person does there."""

import re
from email.message import EmailMessage
from html.parser import HTMLParser

import httpx
from httpx import AsyncClient


class Page(HTMLParser):
    """A page: where its forms go, their fields with values and labels, and its links."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.actions: list[str] = []
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self.labelled: set[str] = set()
        self.ids: set[str] = set()
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            assert found["method"] == "post"
            self.actions.append(found["action"])
        if tag == "a":
            self.links.append(found["href"])
        if tag == "input":
            if "readonly" not in found:  # is shown, not sent
                self.fields.setdefault(found["name"], found.get("value", ""))
            if found["type"] != "hidden":
                self.ids.add(found["id"])
        if tag == "label":
            self.labelled.add(found["for"])


def link_in(message: EmailMessage) -> str:
    """Return the link in a mail."""
    body = message.get_body(("html",))
    assert body is not None
    [link] = re.findall(r'href="([^"]+)"', body.get_content())
    return str(link)


async def send(client: AsyncClient, answer: httpx.Response, **fields: str) -> httpx.Response:
    """Fill in and send the form of a page."""
    shown = Page(answer)
    return await client.post(shown.actions[0], data=shown.fields | fields)


def assert_safe(answer: httpx.Response) -> None:
    """Check what every page that a mail leads to has in common."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert '<html lang="en">' in answer.text
    assert Page(answer).ids == Page(answer).labelled
    assert "<script" not in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")
