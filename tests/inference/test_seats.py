"""One account cannot shut the others out."""

import pytest

from services.inference.protocols.seats import Saturated, Seats


def test_an_account_gets_its_share_and_others_the_rest() -> None:
    seats = Seats(8)

    with seats.taken_by("greedy"), seats.taken_by("greedy"):
        with pytest.raises(Saturated), seats.taken_by("greedy"):
            pass
        with seats.taken_by("modest"):
            assert seats.taken == 3

    assert seats.taken == 0
    with seats.taken_by("greedy"):
        assert seats.taken == 1


def test_all_accounts_together_get_no_more_than_there_is() -> None:
    seats = Seats(2)

    with (
        seats.taken_by("a"),
        seats.taken_by("b"),
        pytest.raises(Saturated),
        seats.taken_by("c"),
    ):
        pass


def test_a_seat_is_left_whatever_happened_on_it() -> None:
    seats = Seats(4)

    with pytest.raises(RuntimeError), seats.taken_by("a"):
        raise RuntimeError

    assert seats.taken == 0
