"""How failed sign-ins are counted, and when they lock a sign-in."""

from datetime import UTC, datetime, timedelta

import pytest

from services.auth.tokens.attempts import (
    PER_ADDRESS,
    PER_USER,
    Failures,
    LoginKeys,
    find_lock,
    login_keys,
    window_ends,
)

KEYS = LoginKeys(pair="p", user="u", address="a")
SOON = datetime(2026, 1, 1, tzinfo=UTC)
LATER = SOON + timedelta(minutes=1)
LIMIT = 10


def lock(
    pair: int = 0, user: int = 0, address: int = 0, *, known: bool, counted: bool = False
) -> datetime | None:
    counts = {"p": (pair, SOON), "u": (user, LATER), "a": (address, LATER)}
    failures = {key: Failures(count, ends) for key, (count, ends) in counts.items() if count}
    return find_lock(KEYS, failures, known=known, limit=LIMIT, counted=counted)


def test_what_else_is_counted_has_keys_of_its_own() -> None:
    sign_ins = login_keys("ada@example.com", client="203.0.113.1")
    mails = login_keys("ada@example.com", client="203.0.113.1", purpose="mail-")

    assert not set(sign_ins) & set(mails)


class TestWindows:
    def test_each_lock_in_a_row_doubles_the_next_window_up_to_an_hour(self) -> None:
        lengths = [(end - SOON).total_seconds() / 60 for end in window_ends(SOON, window_s=300)]

        assert lengths == [5, 10, 20, 40, 60, 60, 60]

    def test_a_window_of_more_than_an_hour_does_not_grow(self) -> None:
        assert set(window_ends(SOON, window_s=7200)) == {SOON + timedelta(hours=2)}


class TestLock:
    def test_without_failures_no_login_is_refused(self) -> None:
        assert lock(known=False) is None

    @pytest.mark.parametrize("known", [True, False])
    def test_ten_failures_from_one_address_are_allowed(self, known: bool) -> None:
        assert lock(pair=LIMIT - 1, known=known) is None
        assert lock(pair=LIMIT, known=known) == SOON
        assert lock(pair=LIMIT, known=known, counted=True) is None
        assert lock(pair=LIMIT + 1, known=known, counted=True) == SOON

    def test_attackers_only_lock_unknown_addresses(self) -> None:
        most = LIMIT * PER_USER

        assert lock(user=most - 1, known=False) is None
        assert lock(user=most, known=False) == LATER

    def test_one_address_cannot_try_every_user(self) -> None:
        most = LIMIT * PER_ADDRESS

        assert lock(address=most - 1, known=False) is None
        assert lock(address=most, known=False) == LATER

    def test_a_known_address_keeps_its_own_limit_during_attacks(self) -> None:
        assert lock(pair=LIMIT - 1, user=10**6, address=10**6, known=True) is None

    def test_the_lock_that_ends_last_counts(self) -> None:
        assert lock(pair=LIMIT, user=LIMIT * PER_USER, known=False) == LATER

    def test_one_address_alone_cannot_reach_the_limit_of_a_user(self) -> None:
        assert LIMIT * PER_USER > LIMIT


class TestKeys:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("198.51.100.7", "::ffff:198.51.100.7"),
            ("2001:db8:1:2::1", "2001:0DB8:1:2:ffff:ffff:ffff:ffff"),
        ],
    )
    def test_addresses_in_one_network_share_a_key(self, one: str, other: str) -> None:
        assert login_keys("ada@x.io", client=one) == login_keys("ada@x.io", client=other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("198.51.100.7", "198.51.100.8"),
            ("2001:db8:1:2::1", "2001:db8:1:3::1"),
            ("", "198.51.100.8"),
            ("/run/socket", ""),
        ],
    )
    def test_addresses_in_two_networks_have_different_keys(self, one: str, other: str) -> None:
        first, second = (login_keys("ada@x.io", client=client) for client in (one, other))

        assert first.user == second.user
        assert first.pair != second.pair
        assert first.address != second.address

    def test_spellings_of_one_email_share_a_key(self) -> None:
        spellings = ["straße@x.io", "STRASSE@X.IO", "strasse@x。io"]

        assert len({login_keys(spelling, client="::1") for spelling in spellings}) == 1

    def test_keys_contain_no_personal_data(self) -> None:
        keys = login_keys("ada@x.io", client="198.51.100.7")

        assert all(len(key) == 64 and key.isalnum() for key in keys)
        assert len(set(keys)) == 3
