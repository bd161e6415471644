"""Receipts, results and errors as values, and how answers are read."""

import inspect
import json
import pickle

import pytest

from tollgate_client import AsyncTollgate, InvalidInputError, Prediction, Receipt, Tollgate
from tollgate_client.reading import read_receipt
from tollgate_client.retrying import retry_after
from tollgate_client.steps import Answer


@pytest.mark.parametrize(
    ("header", "amount", "currency"),
    [("0.0005 USD", "0.0005", "USD"), ("0 EUR (test)", "0", "EUR")],
)
def test_a_receipt_has_an_amount_and_a_currency(header: str, amount: str, currency: str) -> None:
    headers = {"x-usage-event": "e", "x-usage-amount": header}

    receipt = read_receipt(Answer(200, headers, b""))

    assert (receipt.amount, receipt.currency) == (amount, currency)


def test_a_receipt_can_be_stored_as_json_and_pickled() -> None:
    receipt = Receipt(event_id="e", amount="1", currency="USD", model="m", version="v")
    prediction = Prediction(predictions=[1, True, "a", 1.5], receipt=receipt)

    assert json.loads(json.dumps(receipt)) == receipt
    again = pickle.loads(pickle.dumps(prediction))
    assert again == prediction
    assert [type(label) for label in again.predictions] == [int, bool, str, float]
    assert again.receipt.amount == "1"


def test_errors_can_be_pickled() -> None:
    error = InvalidInputError("x", errors=[{"loc": ["a"], "msg": "b"}], status=422)

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.errors, again.status) == ("x", error.errors, 422)


@pytest.mark.parametrize("method", ["predict", "explain", "models", "usage", "balance"])
def test_both_clients_have_the_same_calls_and_describe_them(method: str) -> None:
    one, other = getattr(Tollgate, method), getattr(AsyncTollgate, method)

    assert inspect.signature(one) == inspect.signature(other)
    assert inspect.getdoc(one) == inspect.getdoc(other) != ""
    assert inspect.iscoroutinefunction(other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, expected: float | None) -> None:
    assert retry_after({"retry-after": value}, now=60) == expected
