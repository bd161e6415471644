"""Fingerprints: other sums have other fingerprints, also where changes nearly cancel out."""

from random import Random
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from services.billing.fingerprints import Weights, new_weights

salts = st.integers(0, 2**32 - 1)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=36)


@given(salt=salts, one=st.tuples(names, names), other=st.tuples(names, names))
def test_keys_have_their_own_weights(
    salt: int, one: tuple[str, str], other: tuple[str, str]
) -> None:
    weights = Weights(salt)

    assert 0 <= weights.value(*one) < 2**32
    assert (weights.value(*one) == weights.value(*other)) == (one == other)


def test_rows_that_exchange_parts_of_their_keys_do_not_cancel_out() -> None:
    """CRC32 alone lets one in 7,500 of these exchanges pass, whatever the salt."""
    random = Random(7)
    for _ in range(50_000):
        weight = Weights(random.getrandbits(32)).value
        entry, other = random.sample(range(10**6, 10**7), 2)
        account, another = (f"0198a000-{random.getrandbits(64):016x}" for _ in range(2))

        before = weight(entry, account) + weight(other, another)
        after = weight(entry, another) + weight(other, account)

        assert before != after


def test_no_two_runs_have_the_same_weights() -> None:
    assert len({new_weights().value("a key") for _ in range(20)}) > 15


def test_keys_with_the_same_crc32_do_not_share_a_weight_in_every_run() -> None:
    assert crc32(b"plumless") == crc32(b"buckeroo")

    runs = [new_weights() for _ in range(20)]
    assert not any(run.value("ada", "plumless") == run.value("ada", "buckeroo") for run in runs)
