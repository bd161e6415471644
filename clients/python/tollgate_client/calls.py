"""Every call as steps: where to find the services, what to send, and what the answers mean."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from tollgate_client import frames, tensors
from tollgate_client.answers import Explanations, Prediction, join_receipts
from tollgate_client.batches import MAX_BODY_BYTES, batch_key, split
from tollgate_client.errors import Partial, TollgateError
from tollgate_client.options import Options
from tollgate_client.problems import error_of, no_answer, smaller_batch
from tollgate_client.reading import read_document, read_explanations, read_prediction
from tollgate_client.retrying import RETRIED, next_wait
from tollgate_client.rows import Instance, Rows, encode, invalid
from tollgate_client.steps import Answer, Call, Deadline, Failure, Pause, Send

EXPLAINED_AT_ONCE = 1_000
"""Rows that a service explains at once; if it has to sample, it names a smaller number."""

Part = TypeVar("Part", Prediction, Explanations)
Paid = TypeVar("Paid")

log = logging.getLogger("tollgate_client")


@dataclass(frozen=True)
class Batched:
    """What all batches of a call have in common: `encode_rows(instances, first_row)` is a body."""

    url: str
    rows: Rows
    size: int
    options: Options
    deadline: Deadline
    encode_rows: Callable[[Sequence[Instance], int], bytes]


class Calls:
    """The calls of one client, and what it has learned about the services.

    Methods are generators of steps; they share nothing but caches, so any thread may run them.
    """

    def __init__(self, base_url: str, *, max_retries: int, batch_rows: int) -> None:
        self.base_url = base_url
        self._max_retries = max_retries
        self._batch_rows = batch_rows
        self._addresses: Mapping[str, Any] | None = None
        self._inputs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._classes: dict[tuple[str, str], list[Any] | None] = {}
        self._live: dict[str, str] = {}

    def predict(
        self,
        model: str,
        given: Any,
        *,
        probabilities: bool,
        intervals: float | None,
        version: str | None,
        options: Options,
    ) -> Call[Any]:
        """Predict rows; return a Prediction, or a DataFrame for a DataFrame."""
        if version is not None and intervals is not None:
            message = "Only the live version has intervals; leave out 'version'."
            raise invalid("The call is not possible.", [{"loc": ["intervals"], "msg": message}])
        rows = Rows(given)
        parts: list[Prediction] = []

        def result() -> Any:
            return self._result(model, rows, parts)

        return (
            yield from _paid(
                self._predict(model, rows, parts, probabilities, intervals, version, options),
                parts,
                result,
                options,
            )
        )

    def _predict(
        self,
        model: str,
        rows: Rows,
        parts: list[Prediction],
        probabilities: bool,
        intervals: float | None,
        version: str | None,
        options: Options,
    ) -> Call[None]:
        deadline = Deadline.after(options.timeout_s)
        base = yield from self._locate("inference", deadline)
        names_classes = rows.frame is not None and probabilities
        if names_classes and model not in self._live:
            yield from self._describe(base, model, deadline)
        if version is None:
            url = f"{base}/v1/models/{quote(model, safe='')}:predict"
            parameters = _given(probabilities=probabilities or None, intervals=intervals)

            def encode_rows(instances: Sequence[Instance], first_row: int) -> bytes:
                return _v1_body(instances, parameters)
        else:
            where = f"{base}/v2/models/{quote(model, safe='')}/versions/{quote(version, safe='')}"
            inputs = yield from self._describe_inputs(where, model, version, deadline)
            url = f"{where}/infer"

            def encode_rows(instances: Sequence[Instance], first_row: int) -> bytes:
                return encode(
                    tensors.infer_document(
                        instances, inputs, probabilities=probabilities, first_row=first_row
                    )
                )

        call = Batched(url, rows, self._batch_rows, options, deadline, encode_rows)
        yield from self._send_batches(call, parts, read_prediction)
        answered_by = {part.receipt.version for part in parts}
        if names_classes and any((model, each) not in self._classes for each in answered_by):
            try:  # a version that was released meanwhile, or a canary's
                yield from self._describe(base, model, deadline)
            except TollgateError:
                log.debug("classes of model '%s' are unknown", model)

    def explain(
        self, model: str, given: Any, *, top: int | None, options: Options
    ) -> Call[Explanations]:
        """Explain rows; return Explanations."""
        rows = Rows(given)
        parts: list[Explanations] = []

        def result() -> Explanations:
            return Explanations(
                predictions=[label for part in parts for label in part.predictions],
                explanations=[each for part in parts for each in part.explanations],
                receipt=join_receipts([part.receipt for part in parts]),
            )

        def send() -> Call[None]:
            deadline = Deadline.after(options.timeout_s)
            base = yield from self._locate("inference", deadline)
            parameters = _given(top=top)
            call = Batched(
                f"{base}/v1/models/{quote(model, safe='')}:explain",
                rows,
                min(self._batch_rows, EXPLAINED_AT_ONCE),
                options,
                deadline,
                lambda instances, _: _v1_body(instances, parameters),
            )
            yield from self._send_batches(call, parts, read_explanations)

        return (yield from _paid(send(), parts, result, options))

    def read(
        self, service: str, path: str, parameters: Mapping[str, Any], *, timeout_s: float
    ) -> Call[dict[str, Any]]:
        """Return a document of a service.

        Args:
            parameters: of the query. None is left out, a time may be a datetime, and an underscore
                at the end of a name is removed: `from_` is `from`.
        """
        deadline = Deadline.after(timeout_s)
        base = yield from self._locate(service, deadline)
        query = urlencode(
            {
                name.rstrip("_"): value.isoformat() if isinstance(value, datetime) else value
                for name, value in parameters.items()
                if value is not None
            }
        )
        send = Send("GET", f"{base}{path}" + (f"?{query}" if query else ""), 0)
        return read_document((yield from self._exchange(send, deadline)))

    # -- what the client has to know first ---------------------------------------------------------

    def _locate(self, service: str, deadline: Deadline) -> Call[str]:
        """Return the address of a service; the first call of a client asks for it."""
        if self._addresses is None:
            send = Send("GET", f"{self.base_url}/.well-known/tollgate", 0, authorized=False)
            answer = yield from self._exchange(send, deadline)
            self._addresses = {} if answer.status == 404 else read_document(answer)
        found = self._addresses.get(service) or self.base_url
        url = str(found).rstrip("/")
        if urlsplit(self.base_url).scheme == "https" and urlsplit(url).scheme != "https":
            raise TollgateError(f"The address of {service}, {url}, is not https like the client's.")
        return url

    def _describe(self, base: str, model: str, deadline: Deadline) -> Call[None]:
        """Remember the classes of a model's live version."""
        send = Send("GET", f"{base}/v1/models/{quote(model, safe='')}", 0)
        document = read_document((yield from self._exchange(send, deadline)))
        version = str(document.get("version"))
        self._classes[model, version] = (document.get("signature") or {}).get("classes")
        self._live[model] = version

    def _describe_inputs(
        self, where: str, model: str, version: str, deadline: Deadline
    ) -> Call[list[dict[str, Any]]]:
        """Return the inputs of a version, which never change."""
        known = self._inputs.get((model, version))
        if known is None:
            document = read_document((yield from self._exchange(Send("GET", where, 0), deadline)))
            known = self._inputs[model, version] = list(document.get("inputs", ()))
        return known

    # -- sending -----------------------------------------------------------------------------------

    def _send_batches(
        self, call: Batched, parts: list[Part], read: Callable[[Answer], Part]
    ) -> Call[None]:
        """Send all rows in as few requests as the service accepts; append the answers to `parts`.

        A batch that is refused for its size has not been paid for, and goes again in pieces.
        """
        count, options = call.rows.count, call.options
        waiting = deque(split(0, count, size=call.size))
        while waiting:
            start, stop = waiting.popleft()
            body = call.encode_rows(call.rows.instances(start, stop), start)
            smaller = (stop - start) // 2 if len(body) > MAX_BODY_BYTES else None
            if not smaller:
                key = batch_key(options.idempotency_key, start, stop, count=count)
                headers = {**options.headers, "idempotency-key": key}
                send = Send("POST", call.url, 0, headers, body)
                answer = yield from self._exchange(send, call.deadline)
                smaller = smaller_batch(answer, rows=stop - start)
                if smaller is None:
                    if answer.status != 200:
                        raise error_of(answer, first_row=start)
                    parts.append(read(answer))
                    continue
            waiting = deque(split(start, count, size=smaller))

    def _exchange(self, send: Send, deadline: Deadline) -> Call[Answer]:
        """Send a request until there is an answer that a retry would not change."""
        attempt = 0
        while True:
            remaining_s = deadline.remaining_s()
            if remaining_s <= 0:
                raise no_answer(Failure("the deadline has passed"), timeout_s=deadline.timeout_s)
            outcome = yield _with_time(send, remaining_s)
            if not isinstance(outcome, (Answer, Failure)):
                raise TypeError("a request has an answer or fails")
            if isinstance(outcome, Answer) and outcome.status not in RETRIED:
                return outcome
            wait_s = next_wait(
                outcome,
                attempt=attempt,
                max_retries=self._max_retries,
                remaining_s=deadline.remaining_s(),
                jitter=random.random(),
            )
            if wait_s is None:
                if isinstance(outcome, Answer):
                    return outcome
                raise no_answer(outcome, timeout_s=deadline.timeout_s)
            log.info("retrying in %.2f s: %s", wait_s, _reason(outcome))
            yield Pause(wait_s)
            attempt += 1

    # -- results -----------------------------------------------------------------------------------

    def _result(self, model: str, rows: Rows, parts: Sequence[Prediction]) -> Any:
        """Return the answers of all batches so far as one."""
        receipt = join_receipts([part.receipt for part in parts])
        if rows.frame is not None:
            named = [(part, self._classes_of(model, part)) for part in parts]
            return frames.result_frame(rows.frame, named, receipt=receipt)
        if len(parts) == 1:
            return parts[0]
        joined = {
            name: [each for part in parts for each in getattr(part, name)]
            for name in ("predictions", "probabilities", "intervals", "label_sets")
            if getattr(parts[0], name) is not None
        }
        return Prediction(**joined, receipt=receipt)

    def _classes_of(self, model: str, part: Prediction) -> list[Any] | None:
        """Return the classes of the version that answered, or the live one's if they fit."""
        version = part.receipt.version
        if (model, version) in self._classes:
            return self._classes[model, version]
        live = self._classes.get((model, self._live.get(model, "")))
        return live if live is not None and frames.fits(live, part) else None


def _paid(
    sending: Call[None],
    parts: Sequence[Prediction | Explanations],
    result: Callable[[], Paid],
    options: Options,
) -> Call[Paid]:
    """Return the result of a call; an error states what has been paid for, and the call's key."""
    try:
        yield from sending
    except TollgateError as error:
        error.idempotency_key = options.idempotency_key
        if parts:
            rows = sum(len(part.predictions) for part in parts)
            receipt = join_receipts([part.receipt for part in parts])
            error.partial = Partial(rows, result(), receipt)
        raise
    return result()


def _with_time(send: Send, remaining_s: float) -> Send:
    """Return a request with the time that is left; the service drops a prediction after it."""
    headers = dict(send.headers)
    if send.method == "POST":
        headers["x-request-timeout"] = f"{max(remaining_s, 0.001):.3f}"
    return Send(send.method, send.url, remaining_s, headers, send.body, send.authorized)


def _v1_body(instances: Sequence[Instance], parameters: Mapping[str, Any]) -> bytes:
    document: dict[str, Any] = {"instances": instances}
    return encode({**document, "parameters": parameters} if parameters else document)


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _reason(outcome: Answer | Failure) -> str:
    return outcome.reason if isinstance(outcome, Failure) else f"status {outcome.status}"
