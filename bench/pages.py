"""Benchmark of the console's pages, with data behind them: weight, time, first paint and memory."""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pymysql
from playwright.sync_api import BrowserContext, sync_playwright
from sqlalchemy.engine import make_url

from bench import rows
from bench.figures import Figure
from bench.timing import Timing
from harness.auth_keys import key_ring_of
from harness.programs import NotInstalled, find_program
from harness.services import ServiceProcesses
from services.auth.keys import read_folder
from services.common.contracts import AUDIENCE
from services.console.design.assets import script, style
from services.console.sessions.sealing import Sealer
from services.console.sessions.secret import open_secret
from services.console.sessions.visitors import Session
from services.console.settings import ConsoleSettings

MOST_KB, MOST_MB = 150, 120
REQUESTS = 30
_MAX_S = 10.0
"""How long one page is requested at most."""
_PATIENCE_S = 120.0
_SETTLE_S = 1.0
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIZE = {"width": 1280, "height": 800}
_COOKIE = "tollgate-console"
_BUYER = "predict usage:read keys:write billing:manage"
_FIRST_PAINT = """() => new Promise(done => {
  new PerformanceObserver(list => list.getEntriesByName("first-contentful-paint").forEach(
    each => done(each.startTime))).observe({type: "paint", buffered: true});
  setTimeout(() => done(null), 5000);
})"""
_SHIFT = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => list.getEntries().forEach(each => { sum += each.value; }))
    .observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));
})"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One page; times are in milliseconds."""

    visitor: str
    path: str
    weight_kb: float
    """HTML, style sheet and script before compression."""
    server_ms: list[float]
    first_paint_ms: float | None = None
    shift: float | None = None
    is_complete: bool = True
    """Whether no part of the page was missing because an API did not answer."""

    def quantile_ms(self, share: float) -> float:
        """Return within how many milliseconds a share of the requests was answered."""
        ordered = sorted(self.server_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def name(self) -> str:
        """Who visits which page, with ids left out, so that it is the same in every run."""
        return f"{self.visitor}: {_ID.sub('<id>', self.path)}"

    def figure(self) -> Figure:
        """Return the line of the table."""
        paint = "" if self.first_paint_ms is None else f", first paint {self.first_paint_ms:.0f} ms"
        shift = "" if self.shift is None else f", layout shift {self.shift:.2g}"
        missing = "" if self.is_complete else "; a part was unavailable"
        return Figure(
            self.name,
            self.weight_kb,
            "KB",
            f"server p50 {self.quantile_ms(0.5):.0f} ms, p99 {self.quantile_ms(0.99):.0f} ms"
            f" of {len(self.server_ms)}{paint}{shift}{missing}",
            at_most=MOST_KB,
        )


def pages(platform: ServiceProcesses, timing: Timing, *, events: int) -> list[Figure]:
    """Measure each page as the account with a tenth of all events, or as an administrator.

    Args:
        events: how many are stored; their accounts become users of auth.
    """
    _register_accounts(platform)
    platform.begin("console")
    process = platform.children["console"].pid
    try:
        time.sleep(_SETTLE_S)
        started_mb = _memory_mb(process)
        measured = [
            page
            for visitor, session, paths in _visits(platform)
            for page in _measure(platform, visitor, session, paths, timing)
        ]
        time.sleep(_SETTLE_S)
        idle_mb = _memory_mb(process)
    finally:
        platform.end("console")
    size = f"{events:,} events, {rows.ACCOUNTS:,} accounts"
    slowest = max(measured, key=lambda each: each.quantile_ms(0.99))
    return [
        *(each.figure() for each in measured),
        Figure(
            f"slowest page, server p99, {size}",
            slowest.quantile_ms(0.99),
            "ms",
            slowest.name,
        ),
        Figure(
            "idle memory of the console, all pages served",
            idle_mb,
            "MB",
            f"{started_mb:.0f} MB after the start",
            at_most=MOST_MB,
        ),
    ]


def _visits(platform: ServiceProcesses) -> Iterator[tuple[str, Session | None, list[str]]]:
    """Yield who visits, and the pages: someone signed out, a buyer and an administrator."""
    buyer = rows.account(0)
    with platform.client("billing", platform.admin_token()) as billing:
        page = billing.get("/usage/events", params={"account": buyer, "limit": 1})
        event = page.raise_for_status().json()["events"][0]["id"]
        plan = billing.get("/plans").raise_for_status().json()["plans"][0]["id"]
    yield "signed out", None, ["/", "/models/wine", "/sign-up", "/design"]
    own = ["/models/wine", "/keys", "/usage", "/usage?range=90", "/billing", "/invoices"]
    session = _session(buyer, _sign(platform, buyer), _BUYER)
    yield "buyer", session, [*own, "/organisation"]
    admin = platform.admin_token()
    yield (
        "seller",
        _session(str(uuid.uuid4()), admin, f"{_BUYER} admin"),
        [
            "/admin",
            "/admin/search?q=example",
            "/admin/accounts",
            f"/admin/accounts/{buyer}",
            "/admin/models",
            "/admin/models/wine",
            "/admin/plans",
            f"/admin/plans/preview?plan={quote(plan)}",
            "/admin/invoices",
            "/admin/recalls",
            f"/admin/events/{event}?account={buyer}",
            "/admin/journals",
            "/admin/audit",
        ],
    )


def _measure(
    platform: ServiceProcesses,
    visitor: str,
    session: Session | None,
    paths: list[str],
    timing: Timing,
) -> Iterator[Measured]:
    """Yield what each page weighs, and how long it takes."""
    cookies = {} if session is None else {_COOKIE: _seal(platform, session)}
    shared_bytes = len(style().content) + len(script().content)
    with (
        httpx.Client(
            base_url=platform.urls["console"], cookies=cookies, trust_env=False, timeout=_PATIENCE_S
        ) as client,
        _browser(platform, cookies, timing) as browser,
    ):
        for path in paths:
            page = client.get(path).raise_for_status()
            first_paint_ms, shift = _paint(browser, path) if browser else (None, None)
            yield Measured(
                visitor,
                path,
                (len(page.content) + shared_bytes) / 1000,
                _time(client, path),
                first_paint_ms,
                shift,
                is_complete=path == "/design" or "is unavailable" not in page.text,
            )


def _time(client: httpx.Client, path: str) -> list[float]:
    durations_ms, until = list[float](), time.monotonic() + _MAX_S
    while len(durations_ms) < REQUESTS and (not durations_ms or time.monotonic() < until):
        started = time.perf_counter()
        client.get(path).raise_for_status()
        durations_ms.append((time.perf_counter() - started) * 1000)
    return durations_ms


def _paint(browser: BrowserContext, path: str) -> tuple[float | None, float]:
    """Return when the second visit's first content appears, in ms, and how much the page jumps."""
    page = browser.new_page()
    page.set_default_navigation_timeout(_PATIENCE_S * 1000)
    page.goto(path)
    page.goto(path)
    found = page.evaluate(_FIRST_PAINT), page.evaluate(_SHIFT)
    page.close()
    return found


@contextmanager
def _browser(
    platform: ServiceProcesses, cookies: dict[str, str], timing: Timing
) -> Iterator[BrowserContext | None]:
    """Run Chromium inside the block; None if it is not installed."""
    try:
        program = find_program("chromium", "chromium-browser", "google-chrome")
    except NotInstalled as error:
        timing.say(f"without first paint and layout shift: {error}")
        yield None
        return
    url = platform.urls["console"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--no-proxy-server"]
        )
        context = started.new_context(base_url=url, viewport=_SIZE)  # type: ignore[arg-type]
        for name, value in cookies.items():
            context.add_cookies([{"name": name, "value": value, "url": url}])
        yield context
        started.close()


def _session(account: str, token: str, scope: str) -> Session:
    ends = int(time.time()) + 3600
    return Session(
        id=uuid.uuid4().hex,
        user_id=account,
        email="bench@example.com",
        account=account,
        account_name=None,
        role="owner",
        scopes=tuple(scope.split()),
        token=token,
        expires_at=ends,
        renew_at=ends,
    )


def _seal(platform: ServiceProcesses, session: Session) -> str:
    """Return a session's cookie, with the secret of the platform's console."""
    sealer = Sealer(open_secret(ConsoleSettings(home=platform.home)))
    return sealer.seal(asdict(session), purpose="session")


def _sign(platform: ServiceProcesses, account: str) -> str:
    """Return a token of a user who never signs in, signed with auth's own key."""
    now = int(time.time())
    return key_ring_of(read_folder(platform.home / "keys/auth")).sign(
        {
            "iss": platform.urls["auth"],
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 3600,
            "sub": account,
            "jti": uuid.uuid4().hex,
            "client_id": "console",
            "scope": _BUYER,
        }
    )


def _register_accounts(platform: ServiceProcesses) -> None:
    """Make the accounts of the stored events users of auth; nobody can sign in as them."""
    url = make_url(platform.environment["AUTH_DATABASE_URL"])
    began = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=90)
    users = [
        (rows.account(number), f"buyer-{number:04d}@example.com", f"Buyer {number}", "x", 0, began)
        for number in range(rows.ACCOUNTS)
    ]
    connection = pymysql.connect(
        host=str(url.host),
        port=int(url.port or 0),
        user=url.username,
        password=str(url.password),
        database=url.database,
    )
    with connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT IGNORE INTO users (id, email, name, password_hash, is_admin, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            users,
        )
        connection.commit()


def _memory_mb(process: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) * 1024 / 1e6
