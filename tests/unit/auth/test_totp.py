"""Time-based one-time passwords, against the test vectors of RFC 6238."""

import base64

import pytest

from services.auth.users.totp import STEP_S, matching_step

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_vectors_of_the_standard_match(at: int, code: str) -> None:
    assert matching_step(SECRET, code, now=at) == at // STEP_S


def test_clocks_may_differ_by_one_step_and_no_more() -> None:
    offsets = range(-2, 3)

    steps = [matching_step(SECRET, "081804", now=1111111109 + each * STEP_S) for each in offsets]

    step = 1111111109 // STEP_S
    assert steps == [None, step, step, step, None]


@pytest.mark.parametrize("code", ["", "28708", "2870820", "٢٨٧٠٨٢", "28708x", "287082\n"])
def test_what_is_not_six_digits_never_matches(code: str) -> None:
    assert matching_step(SECRET, code, now=59) is None


def test_spaces_are_ignored() -> None:
    assert matching_step(SECRET, "287 082", now=59) == 1
