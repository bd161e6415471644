"""From successful answers to what calls return."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from tollgate_client.answers import Explanations, Prediction, Receipt
from tollgate_client.errors import TollgateError
from tollgate_client.problems import error_of
from tollgate_client.steps import Answer
from tollgate_client.tensors import read_outputs


def read_document(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        TollgateError: the answer is an error, or not a JSON object.
    """
    if answer.status != 200:
        raise error_of(answer)
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _strange(answer)
    return document


def read_prediction(answer: Answer) -> Prediction:
    """Return a prediction by either protocol.

    Raises:
        TollgateError: the answer is not a prediction with a receipt.
    """
    document, receipt = read_document(answer), read_receipt(answer)
    try:
        found = read_outputs(document) if "outputs" in document else document
        return Prediction(**found, receipt=receipt)
    except (ValidationError, KeyError, TypeError, ValueError):
        pass
    raise _strange(answer)


def read_explanations(answer: Answer) -> Explanations:
    """Return explanations.

    Raises:
        TollgateError: the answer is not one with explanations and a receipt.
    """
    document, receipt = read_document(answer), read_receipt(answer)
    try:
        return Explanations(**document, receipt=receipt)
    except (ValidationError, TypeError):
        pass
    raise _strange(answer)


def read_receipt(answer: Answer) -> Receipt:
    """Return the receipt in an answer's headers; `X-Usage-Amount` is such as `0.0005 USD`.

    Raises:
        TollgateError: the answer has no receipt.
    """
    headers = answer.headers
    amount, _, currency = headers.get("x-usage-amount", "").partition(" ")
    event_id = headers.get("x-usage-event", "")
    if not (amount and event_id):
        raise _strange(answer)
    return Receipt(
        event_id=event_id,
        amount=amount,
        currency=currency.partition(" ")[0],  # a test key's amount ends with "(test)"
        model=headers.get("x-model-name", ""),
        version=headers.get("x-model-version", ""),
    )


def _strange(answer: Answer) -> TollgateError:
    return TollgateError(
        "The answer is not one of Tollgate's; check 'base_url'.",
        status=answer.status,
        request_id=answer.headers.get("x-request-id"),
    )
