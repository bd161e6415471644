"""The three services answer as their OpenAPI documents describe, whatever they receive."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Err, Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from harness.auth_keys import local_key_ring
from harness.platform import Platform, running
from services.auth.callers import FIRST_PARTY
from services.common.contracts import AUDIENCE
from services.common.identity.guards import SCOPES

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = [3, pytest.param(20, marks=pytest.mark.slow)]
"""Valid requests for each operation; half as many are invalid, or have no token."""
TIMEOUT_S = 30
LIMIT_S = 300
"""For all calls of one service; far more than they need, so that only a fault exceeds it."""


@pytest.fixture(scope="module")
def platform(new_home: Callable[[], Path]) -> Iterator[Platform]:
    """A running platform for this module only: any call may be made on it."""
    with running(new_home()) as started:
        yield started


@pytest.fixture(scope="module")
def token(platform: Platform) -> str:
    """A token of the administrator's with every scope."""
    with platform.client("auth", platform.admin_token()) as auth:
        account = auth.get("/userinfo").json()["sub"]
    now = int(time.time())
    claims = {
        "iss": platform.urls["auth"],
        "sub": account,
        "user_id": account,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "jti": str(uuid.uuid4()),
        "client_id": FIRST_PARTY,
        "scope": " ".join(SCOPES),
    }
    return local_key_ring(platform.home).sign(claims)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


@pytest.mark.costly
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("service", ["auth", "inference", "billing"])
def test_every_answer_is_documented(
    platform: Platform, token: str, session: requests.Session, service: str, examples: int
) -> None:
    answer = session.get(f"{platform.urls[service]}/openapi.json", timeout=TIMEOUT_S)
    assert "#/$defs/" not in answer.text  # no dangling references, which hide errors
    document = answer.json()
    schema = schemathesis.openapi.from_dict(document_to_test(document))
    operations = [checked_operation(result) for result in schema.get_all_operations()]
    authorized = {"Authorization": f"Bearer {token}"}

    faults: dict[str, str] = {}
    statuses: Counter[int] = Counter()
    deadline = time.monotonic() + LIMIT_S
    for operation in operations:
        assert time.monotonic() < deadline, f"{operation.label} was not reached in {LIMIT_S} s"
        for mode, calls, headers in (
            (GenerationMode.POSITIVE, examples, authorized),
            (GenerationMode.NEGATIVE, examples // 2, authorized),
            (GenerationMode.POSITIVE, examples // 2, {}),
        ):
            call = partial(
                check,
                session=session,
                url=platform.urls[service],
                headers=headers,
                faults=faults,
                statuses=statuses,
            )
            call_at_random(operation, mode, calls, call)

    assert len(operations) >= 10
    assert sum(count for status, count in statuses.items() if status < 300) > len(operations)
    with platform.client("auth", token) as auth:
        assert auth.get("/userinfo").status_code == 200  # the credentials were valid throughout
    assert not faults, "\n\n".join(faults.values())


def checked_operation(
    result: Ok[APIOperation[Any, Any, Any, Any]] | Err[InvalidSchema],
) -> APIOperation[Any, Any, Any, Any]:
    assert isinstance(result, Ok), str(result.err())
    return result.ok()


def document_to_test(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without catch-all responses, and with an existing model as an example."""
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("default", None)
            for parameter in operation.get("parameters", []):
                if (parameter["name"], parameter["in"]) == ("model", "path"):
                    parameter["schema"] = {"enum": ["wine", "nobody-has-it"]}
    return document


def call_at_random(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    examples: int,
    call: Callable[[schemathesis.Case[Any]], None],
) -> None:
    """Make calls of one operation, the same in every run."""

    @seed(0)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def make(case: schemathesis.Case[Any]) -> None:
        call(case)

    # A call without parameters cannot have wrong ones.
    with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
        make()


def check(
    case: schemathesis.Case[Any],
    *,
    session: requests.Session,
    url: str,
    headers: dict[str, str],
    faults: dict[str, str],
    statuses: Counter[int],
) -> None:
    """Make a call; record the response's defects as a fault, at most one for each status."""
    response = case.call(base_url=url, session=session, headers=headers, timeout=TIMEOUT_S)
    statuses[response.status_code] += 1
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as error:
        name = f"{case.operation.label} {response.status_code}"
        faults.setdefault(name, f"{name}: {error}")
