"""Take the screenshots of the README's tour, from a platform that is started for it.

PYTHONPATH=. python scripts/tour.py [FOLDER]     default: docs/assets/tour
"""

import random
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from cli.local import state
from harness.platform import Platform, running
from harness.programs import ROOT, find_program
from harness.samples import WINE

FOLDER = ROOT / "docs/assets/tour"
SIZE: ViewportSize = {"width": 1200, "height": 760}
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
CALLS = 240


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running(Path(home) / "home") as platform,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=find_program("chromium", "chromium-browser", "google-chrome"),
            args=["--no-sandbox"],
        )
        page = browser.new_page(base_url=platform.urls["console"], viewport=SIZE)
        take_tour(page, platform, folder)
        browser.close()


def take_tour(page: Page, platform: Platform, folder: Path) -> None:
    """Go through the console as a buyer and as an administrator."""
    page.goto("/sign-up")
    page.fill("[name=email]", EMAIL)
    page.fill("[name=password]", PASSWORD)
    page.fill("[name=name]", "Ada Lovelace")
    page.get_by_role("button", name="Create account").click()
    shoot(page, folder / "1-catalogue.png")
    page.goto("/models/wine")
    page.get_by_role("button", name="Predict and explain").click()
    shoot(page, folder / "2-playground.png")
    page.goto("/keys")
    page.fill("[name=name]", "Tasting app")
    page.get_by_role("button", name="Create key").click()
    key = page.get_by_test_id("api-key").first.inner_text().strip()
    shoot(page, folder / "3-key.png")
    predict(platform, key)
    page.wait_for_timeout(2_500)  # until billing has the calls
    page.goto("/usage")
    shoot(page, folder / "4-usage.png")
    page.context.clear_cookies()
    admin = state.credentials(platform.home)["admin"]
    page.goto("/sign-in?return_to=/admin")
    page.fill("[name=email]", admin["email"])
    page.fill("[name=password]", admin["password"])
    page.get_by_role("button", name="Sign in").first.click()
    page.wait_for_url("**/admin")
    shoot(page, folder / "5-overview.png")


def predict(platform: Platform, key: str) -> None:
    """Make calls with an API key."""
    chance = random.Random(1)
    with httpx.Client(base_url=platform.urls["inference"], headers={"X-API-Key": key}) as client:
        for _ in range(CALLS):
            rows = [WINE] * chance.randint(1, 9)
            client.post("/v1/models/wine:predict", json={"instances": rows}).raise_for_status()


def shoot(page: Page, path: Path) -> None:
    """Store what the window shows, in few colours."""
    page.wait_for_load_state()
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
