"""What the clients send and how they retry, with services whose answers the test decides."""

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.unit.client.callers import KINDS, Caller
from tollgate_client import (
    AsyncTollgate,
    AuthenticationError,
    InvalidInputError,
    Tollgate,
    TollgateError,
    UnavailableError,
)

KEY = "tg_live_" + "s" * 32 + "_secret"
BASE = "http://billing.test"
URLS = {"inference": "http://inference.test", "billing": "http://billing.test/"}
RECEIPT = {
    "x-usage-event": "e1",
    "x-usage-amount": "0.0006 USD",
    "x-model-name": "wine",
    "x-model-version": "v1",
}

Answers = Callable[[httpx.Request], httpx.Response]


class Service:
    """Answers with the next of some answers, and remembers the requests."""

    def __init__(self, *answers: httpx.Response | Exception, addresses: Any = None) -> None:
        self.requests: list[httpx.Request] = []
        self.asked_for_addresses: list[httpx.Request] = []
        self._answers = list(answers)
        self._addresses = URLS if addresses is None else addresses

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/.well-known/tollgate":
            self.asked_for_addresses.append(request)
            return httpx.Response(200, json=self._addresses)
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def predicted(*labels: Any, **headers: str) -> httpx.Response:
    return httpx.Response(200, json={"predictions": labels}, headers=RECEIPT | headers)


def problem(status: int, code: str = "x", **members: Any) -> httpx.Response:
    document = {"type": f"urn:tollgate:problem:{code}", "detail": "It is so."} | members
    return httpx.Response(status, json=document, headers={"x-request-id": "r1"})


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("tollgate_client.client.time.sleep", waited.append)
    monkeypatch.setattr("tollgate_client.async_client.asyncio.sleep", sleep)
    return waited


@pytest.fixture
def call(kind: str) -> Iterator[Callable[..., Caller]]:
    """Return a client of a service: `call(service, **options)`."""
    opened: list[Caller] = []

    def open_(service: Service, base_url: str = BASE, **options: Any) -> Caller:
        transport = httpx.MockTransport(service)
        opened.append(Caller(kind, KEY, base_url, transport=transport, **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.__exit__()


class TestRetries:
    def test_one_key_and_one_body_go_through_all_attempts(
        self, call: Callable[..., Caller], pauses: list[float]
    ) -> None:
        lost = httpx.ReadError("")
        service = Service(lost, problem(503), httpx.Response(502), predicted(0))

        prediction = call(service).predict("wine", [[1]])

        assert prediction.predictions == [0]
        assert len({each.headers["idempotency-key"] for each in service.requests}) == 1
        assert len({each.content for each in service.requests}) == 1
        assert len(service.requests) == 4
        for wait, least, most in zip(pauses, (0.125, 0.25, 0.5), (0.25, 0.5, 1.0), strict=True):
            assert least <= wait <= most

    def test_every_call_has_a_key_of_its_own(self, call: Callable[..., Caller]) -> None:
        service = Service(predicted(0), predicted(0))
        client = call(service)

        client.predict("wine", [[1]])
        client.predict("wine", [[1]])

        assert len({each.headers["idempotency-key"] for each in service.requests}) == 2

    def test_the_wait_is_as_long_as_the_service_asks(
        self, call: Callable[..., Caller], pauses: list[float]
    ) -> None:
        refused = problem(429)
        refused.headers["retry-after"] = "7"

        call(Service(refused, predicted(0))).predict("wine", [[1]])

        assert 7 <= pauses[0] <= 7.25

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 415, 422, 501])
    def test_what_a_retry_would_not_change_is_not_retried(
        self, call: Callable[..., Caller], status: int
    ) -> None:
        service = Service(problem(status))

        with pytest.raises(TollgateError) as caught:
            call(service).predict("wine", [[1]])

        assert caught.value.status == status
        assert len(service.requests) == 1

    def test_retries_come_to_an_end(self, call: Callable[..., Caller]) -> None:
        service = Service(*[problem(503)] * 3)

        with pytest.raises(UnavailableError, match="It is so"):
            call(service, max_retries=2).predict("wine", [[1]])

        assert len(service.requests) == 3

    def test_no_wait_exceeds_the_deadline(
        self, call: Callable[..., Caller], pauses: list[float]
    ) -> None:
        refused = problem(503)
        refused.headers["retry-after"] = "60"

        with pytest.raises(UnavailableError):
            call(Service(refused)).predict("wine", [[1]], timeout=50)

        assert pauses == []

    def test_the_service_learns_how_long_the_caller_waits(
        self, call: Callable[..., Caller]
    ) -> None:
        service = Service(predicted(0))

        call(service).predict("wine", [[1]], timeout=5)

        assert 0 < float(service.requests[0].headers["x-request-timeout"]) <= 5


class TestAddresses:
    def test_they_are_asked_for_once_and_without_the_key(self, call: Callable[..., Caller]) -> None:
        service = Service(predicted(0), httpx.Response(200, json={"balance": "1"}))
        client = call(service)

        client.predict("wine", [[1]])
        balance = client.balance()

        assert balance == {"balance": "1"}
        [asked] = service.asked_for_addresses
        assert "authorization" not in asked.headers
        urls = [str(each.url) for each in service.requests]
        assert urls == ["http://inference.test/v1/models/wine:predict", f"{BASE}/balance"]
        assert {each.headers["authorization"] for each in service.requests} == {f"Bearer {KEY}"}

    def test_an_unknown_one_is_that_of_the_client(self, call: Callable[..., Caller]) -> None:
        service = Service(predicted(0), addresses={"inference": None})

        call(service).predict("wine", [[1]])

        assert str(service.requests[0].url) == f"{BASE}/v1/models/wine:predict"

    def test_the_key_is_not_sent_in_the_clear_if_the_client_uses_https(
        self, call: Callable[..., Caller]
    ) -> None:
        service = Service(predicted(0))

        with pytest.raises(TollgateError, match="not https"):
            call(service, "https://billing.test").predict("wine", [[1]])

        assert service.requests == []

    @pytest.mark.parametrize("url", ["inference.test", "ftp://x", "", "http://x/?a=b"])
    def test_an_address_must_be_an_http_url(self, url: str) -> None:
        for client in (Tollgate, AsyncTollgate):
            with pytest.raises(ValueError, match="base_url"):
                client("key", url)


class TestBatches:
    def test_a_batch_that_is_too_large_goes_again_in_pieces(
        self, call: Callable[..., Caller]
    ) -> None:
        service = Service(problem(413), predicted(1, 2), predicted(3, 4), predicted(5))

        prediction = call(service).predict("wine", [[n] for n in range(1, 6)])

        assert prediction.predictions == [1, 2, 3, 4, 5]
        sent = [json.loads(each.content)["instances"] for each in service.requests[1:]]
        assert sent == [[[1], [2]], [[3], [4]], [[5]]]
        assert prediction.receipt.amount == "0.0018"
        assert [part.amount for part in prediction.receipt.parts] == ["0.0006"] * 3

    def test_the_same_call_has_the_same_keys_and_each_batch_another(
        self, call: Callable[..., Caller]
    ) -> None:
        service = Service(*[predicted(1, 1)] * 4)
        client = call(service, batch_rows=2)

        for _ in range(2):
            client.predict("wine", [[1]] * 4, idempotency_key="mine")

        keys = [each.headers["idempotency-key"] for each in service.requests]
        assert keys[:2] == keys[2:]
        assert len(set(keys)) == 2

    def test_the_number_of_rows_that_a_service_names_is_kept_to(
        self, call: Callable[..., Caller]
    ) -> None:
        errors = [{"loc": ["instances"], "msg": "Too many rows; the maximum is 3."}]
        service = Service(problem(422, errors=errors), predicted(1, 1, 1), predicted(1, 1))

        call(service).predict("wine", [[1]] * 5)

        rows = [len(json.loads(each.content)["instances"]) for each in service.requests]
        assert rows == [5, 3, 2]

    def test_one_row_that_is_too_large_is_an_error(self, call: Callable[..., Caller]) -> None:
        with pytest.raises(InvalidInputError):
            call(Service(problem(413))).predict("wine", [["x" * 100]])

    def test_a_failure_says_what_was_answered_and_paid_for(
        self, call: Callable[..., Caller]
    ) -> None:
        errors = [{"loc": ["instances", 1, "a"], "msg": "Wrong."}]
        service = Service(predicted(7, 8), problem(422, errors=errors))

        with pytest.raises(InvalidInputError) as caught:
            call(service, batch_rows=2).predict("wine", [[1]] * 4, idempotency_key="mine")

        error = caught.value
        assert error.errors == [{"loc": ["instances", 3, "a"], "msg": "Wrong."}]
        assert error.idempotency_key == "mine"
        assert error.partial is not None
        assert error.partial.rows == 2
        assert error.partial.result.predictions == [7, 8]
        assert error.partial.receipt.amount == "0.0006"


class TestSecrets:
    def test_the_key_appears_in_no_text(
        self, call: Callable[..., Caller], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        client = call(Service(httpx.ReadError("broken"), problem(503), problem(401)))

        with pytest.raises(AuthenticationError) as caught:
            client.predict("wine", [[1]])

        texts = [
            caplog.text,
            repr(client.client),
            repr(client.client.__dict__),
            repr(caught.value),
            repr(caught.value.__dict__),
            *traceback.TracebackException.from_exception(
                caught.value, capture_locals=True
            ).format(),
        ]
        assert [text for text in texts if KEY in text] == []
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("key", ["", "tg_live_ä", "a b", "a\nb"])
    def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(self, key: str) -> None:
        with pytest.raises(ValueError, match="api_key") as caught:
            Tollgate(key)

        assert not key or key not in str(caught.value)


class TestOptions:
    def test_tags_are_sent(self, call: Callable[..., Caller]) -> None:
        service = Service(predicted(0))

        call(service).predict("wine", [[1]], tags={"team": "a", "project": "b"})

        assert service.requests[0].headers["x-tags"] == "team=a,project=b"

    @pytest.mark.parametrize(
        "options",
        [
            {"tags": {"a": "b c"}},
            {"tags": {str(n): "x" for n in range(6)}},
            {"idempotency_key": ""},
            {"idempotency_key": "a\r\nx: y"},
            {"intervals": 0.9, "version": "v1"},
        ],
    )
    def test_wrong_ones_are_refused_before_anything_is_sent(
        self, call: Callable[..., Caller], options: dict[str, Any]
    ) -> None:
        service = Service()

        with pytest.raises(InvalidInputError):
            call(service).predict("wine", [[1]], **options)

        assert service.requests == service.asked_for_addresses == []

    def test_a_name_cannot_leave_its_path(self, call: Callable[..., Caller]) -> None:
        service = Service(problem(404))

        with pytest.raises(TollgateError):
            call(service).predict("../../x?y#z", [[1]])

        assert service.requests[0].url.raw_path == b"/v1/models/..%2F..%2Fx%3Fy%23z:predict"


class TestStrangeAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>", headers=RECEIPT),
            httpx.Response(200, json=[1], headers=RECEIPT),
            httpx.Response(200, json={"predictions": "x"}, headers=RECEIPT),
            httpx.Response(200, json={"outputs": [1]}, headers=RECEIPT),
            httpx.Response(200, json={"predictions": [1]}),
            httpx.Response(302, headers={"location": "http://evil.test"}),
        ],
    )
    def test_they_are_errors(self, call: Callable[..., Caller], answer: httpx.Response) -> None:
        with pytest.raises(TollgateError):
            call(Service(answer)).predict("wine", [[1]])

    def test_an_error_without_a_document_has_its_status(self, call: Callable[..., Caller]) -> None:
        with pytest.raises(AuthenticationError, match="403"):
            call(Service(httpx.Response(403, text="<html>"))).predict("wine", [[1]])
