"""Benchmarks of issuing and verifying tokens, against the cryptography that they cannot avoid."""

import asyncio
import base64
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from bench import cores, load
from bench.figures import Figure, Rates
from bench.timing import Timing
from harness.auth_keys import key_ring_of
from harness.services import ServiceProcesses
from harness.waiting import eventually
from services.auth.keys import LoadedKey, new_key
from services.auth.passwords import PasswordHasher
from services.auth.signing.service import rotate
from services.auth.signing.vault import Vault
from services.common.contracts import AUDIENCE
from services.common.db.database import Database
from services.common.identity.tokens import TokenVerifier
from services.common.settings import local_client

ISSUER = "http://auth"
PASSWORD = "correct horse battery"  # noqa: S105
CONNECTIONS = 16
TOKENS = 200
CHUNKS = 25
PROBE_EVERY_S = 0.01
_PADDING, _HASH = padding.PKCS1v15(), hashes.SHA256()


def logins(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Measure sign-ins, tokens for clients, and the verification of unknown tokens.

    The platform gets a signing key of the default size first, so all its tokens become invalid.
    """
    key = new_key()
    asyncio.run(_rotate(platform.environment["AUTH_DATABASE_URL"]))
    eventually(lambda: _published_bits(platform) == [key.private.key_size])
    return [
        *_password_logins(platform, timing),
        _client_tokens(platform, key, timing),
        asyncio.run(_token_miss(key)),
    ]


async def _rotate(database_url: str) -> None:
    database = Database(database_url)
    try:
        await rotate(database, Vault(), at_once=True)
    finally:
        await database.close()


def _published_bits(platform: ServiceProcesses) -> list[int]:
    """Return the sizes of the keys that auth publishes."""
    with platform.client("auth") as auth:
        published = auth.get("/.well-known/jwks.json").json()["keys"]
    return [len(base64.urlsafe_b64decode(key["n"] + "==")) * 8 for key in published]


# -- sign-ins with a password --------------------------------------------------------------------


def _password_logins(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    email = f"{uuid.uuid4().hex}@example.com"
    with platform.client("auth") as auth:
        auth.post("/register", json={"email": email, "password": PASSWORD}).raise_for_status()
    form = urlencode({"grant_type": "password", "username": email, "password": PASSWORD})
    request = _form_request(platform, form)
    bare: list[float] = []
    served: list[float] = []
    probed: list[float] = []
    for _ in range(timing.repetitions):
        bare.append(_bare_argon2_rate(timing.seconds))
        served.append(_served_rate(platform, request, timing))
        # Not during the measurement above: a hundred probes a second take as much CPU time as two
        # sign-ins, on the cores that the sign-ins are compared with.
        with _probing(platform.urls["auth"]) as seconds:
            _served_rate(platform, request, timing)
        probed += seconds
    rates = Rates(tuple(served), tuple(bare))
    p99_s = statistics.quantiles(probed, n=100)[98]
    return [
        Figure(
            "password sign-ins ÷ argon2 on all cores",
            rates.ratio,
            "×",
            f"{rates} /s, {CONNECTIONS} connections",
            at_least=0.8,
        ),
        Figure(
            "/healthz during password sign-ins, p99",
            p99_s * 1000,
            "ms",
            f"{len(probed):,} responses",
            at_most=50.0,
        ),
    ]


def _served_rate(platform: ServiceProcesses, request: bytes, timing: Timing) -> float:
    return load.measure(
        platform.urls["auth"], [request], connections=CONNECTIONS, seconds=timing.seconds
    ).rate


def _bare_argon2_rate(seconds: float) -> float:
    """Return how many passwords per second all cores verify, with auth's own settings."""
    hasher, threads = PasswordHasher(threads=1), cores.count()
    context = hasher._context
    stored = context.hash(PASSWORD)
    deadline = time.perf_counter() + seconds

    def verify_until_deadline(_: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            context.verify(PASSWORD, stored)
            count += 1
        return count

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(verify_until_deadline, range(threads)))
    hasher.close()
    return total / (time.perf_counter() - started)


@contextmanager
def _probing(url: str) -> Iterator[list[float]]:
    """Request `/healthz` during the block; yield the seconds that each response took."""
    seconds: list[float] = []
    stopped = threading.Event()
    parts = urlsplit(url)

    def probe() -> None:
        connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
        while not stopped.wait(PROBE_EVERY_S):
            started = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            seconds.append(time.perf_counter() - started)
        connection.close()

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield seconds
    finally:
        stopped.set()
        thread.join()


# -- tokens for clients --------------------------------------------------------------------------


def _client_tokens(platform: ServiceProcesses, key: LoadedKey, timing: Timing) -> Figure:
    client_id, secret = local_client(platform.home)
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    request = _form_request(
        platform, urlencode({"grant_type": "client_credentials"}), Authorization=f"Basic {basic}"
    )
    bare: list[float] = []
    served: list[float] = []
    for _ in range(timing.repetitions):
        bare.append(_rate_of(lambda: key.private.sign(b"x" * 500, _PADDING, _HASH), timing.seconds))
        served.append(_served_rate(platform, request, timing))
    rates = Rates(tuple(served), tuple(bare))
    return Figure(
        "/token by client credentials ÷ RS256 signing on one core",
        rates.ratio,
        "×",
        f"{rates} /s with {key.private.key_size} bits",
        at_least=0.5,
    )


def _rate_of(work: Callable[[], object], seconds: float) -> float:
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        work()
        count += 1
    return count / (time.perf_counter() - started)


def _form_request(platform: ServiceProcesses, form: str, **headers: str) -> bytes:
    return load.post(
        f"{platform.urls['auth']}/token",
        form.encode(),
        Content_Type="application/x-www-form-urlencoded",
        **headers,
    )


# -- verification --------------------------------------------------------------------------------


async def _token_miss(key: LoadedKey) -> Figure:
    """Compare the CPU time of a token that is not known with that of its bare signature check.

    Both are the best of many short chunks, so that other work on the machine does not count.
    """
    ring, now = key_ring_of([key]), int(time.time())
    verifier = TokenVerifier(ring, issuer=ISSUER)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    claims |= {"client_id": "tollgate-web", "scope": "predict usage:read keys:write"}
    account = str(uuid.uuid4())
    claims |= {"sub": account, "user_id": account}
    tokens = [ring.sign(claims | {"jti": str(uuid.uuid4())}).encode() for _ in range(TOKENS)]
    signed = [token.rpartition(b".")[::2] for token in tokens]
    checks = [(text, base64.urlsafe_b64decode(signature + b"==")) for text, signature in signed]
    public = key.private.public_key()
    bare_s = own_s = float("inf")
    for _ in range(CHUNKS):
        started = time.process_time()
        for text, signature in checks:
            public.verify(signature, text, _PADDING, _HASH)
        bare_s = min(bare_s, time.process_time() - started)
        verifier.forget()
        started = time.process_time()
        for token in tokens:
            await verifier.verify(token)
        own_s = min(own_s, time.process_time() - started)
    return Figure(
        "check of an unknown token ÷ RS256 verification, in process",
        own_s / bare_s,
        "×",
        f"{own_s / TOKENS * 1e6:.0f} and {bare_s / TOKENS * 1e6:.0f} µs of CPU time with "
        f"{key.private.key_size} bits; best of {CHUNKS}",
        at_most=1.5,
    )
