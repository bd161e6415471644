"""Where callers find the services: every one of them publishes the addresses of all."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from harness.every_service import create_every_app

URLS = {
    "INFERENCE_PUBLIC_URL": "https://inference.example.com/",
    "BILLING_PUBLIC_URL": "https://billing.example.com",
    "CONSOLE_INFERENCE_URL": "https://inference.example.com",
    "CONSOLE_BILLING_URL": "https://billing.example.com",
    "CONSOLE_PUBLIC_URL": "https://console.example.com",
}


async def published(app: FastAPI) -> dict[str, str | None]:
    """Return the addresses that a service publishes, without credentials."""
    transport = ASGITransport(app=app)
    async with AsyncClient(transport=transport, base_url="http://service.test") as client:
        answer = await client.get("/.well-known/tollgate")
    assert answer.status_code == 200
    assert "max-age" in answer.headers["cache-control"]
    found: dict[str, str | None] = answer.json()
    return found


async def test_every_service_publishes_the_addresses_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, url in URLS.items():
        monkeypatch.setenv(name, url)

    apps = create_every_app(tmp_path)

    for app in apps.values():
        assert await published(app) == {
            "issuer": "http://127.0.0.1:8001",
            "inference": "https://inference.example.com",
            "billing": "https://billing.example.com",
            "console": "https://console.example.com",
        }


async def test_an_unknown_address_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERENCE_PUBLIC_URL", "BILLING_PUBLIC_URL", "CONSOLE_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)

    apps = create_every_app(tmp_path)

    for name in apps.keys() - {"console"}:  # it has to know them
        found = await published(apps[name])
        assert (found["inference"], found["billing"], found["console"]) == (None, None, None)
