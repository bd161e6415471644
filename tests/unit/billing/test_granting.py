"""What lease requests get, whatever they ask for and in whatever order."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from harness.usage_events import ADA, BOB, JOURNAL
from services.billing.ledger.granting import AllProcesses, Grants, Turn, grant, outcome
from services.billing.ledger.reservations import (
    CreditReservation,
    Funds,
    LockedMoney,
    ReservationKey,
    ReservedCredit,
    is_enough,
    reclaim,
    settle,
)
from services.common.contracts import LeaseRequest
from tests.integration.billing.money import NOON, request

JOURNALS = (JOURNAL, "0198b000-0000-7000-8000-000000000002", "0198b000-0000-7000-8000-000000000003")
NEW = "0198a000-0000-7000-8000-00000000000c"
"""An account that billing does not know yet."""

small = st.integers(0, 60)


@st.composite
def reservations(draw: st.DrawFn, account: str, journal: str) -> CreditReservation:
    """Draw a reservation as it may be stored; `spent` may exceed `granted` after a reclaim."""
    settled, unsettled = draw(small), draw(small)
    return CreditReservation(
        account=account,
        journal=journal,
        granted=settled + unsettled,
        settled=settled,
        spent=draw(small),
        sequence=draw(st.integers(0, 3)),
    )


@st.composite
def stored_money(draw: st.DrawFn) -> LockedMoney:
    """Draw the money of two accounts; late events may have taken one below zero."""
    keys = [ReservationKey(account, journal) for account in (ADA, BOB) for journal in JOURNALS]
    return LockedMoney(
        {account: Funds("USD", draw(st.integers(-20, 100))) for account in (ADA, BOB)},
        {key: draw(reservations(*key)) for key in draw(st.sets(st.sampled_from(keys)))},
    )


one_request = st.builds(
    request,
    st.integers(1, 6),
    account=st.sampled_from([ADA, ADA, BOB, NEW]),
    journal=st.sampled_from(JOURNALS),
    spent=small,
    minimum=st.just(0) | small,
    desired=small,
    release=st.sampled_from([False, False, True]),
    demand=st.floats(0, 10),
)
requests = st.lists(one_request, max_size=8)
closed_journals = st.sets(st.sampled_from(JOURNALS), max_size=1)


def apply(
    asked: Sequence[LeaseRequest], money: LockedMoney, *, closed: set[str] | None = None
) -> Grants:
    given_money = LockedMoney(dict(money.funds), dict(money.reservations))
    grants = grant(asked, money=money, closed=closed or set(), prepaid={ADA, BOB, NEW})
    assert money == given_money, "a decision must not change what it was given"
    return grants


def after(money: LockedMoney, grants: Grants) -> LockedMoney:
    """Return the money once the grants are written."""
    funds = {
        account: Funds(each.currency, each.available + grants.changes[account])
        for account, each in money.funds.items()
    }
    return LockedMoney(funds, {**money.reservations, **grants.reservations})


def balances(money: LockedMoney) -> Counter[str]:
    """Return what is available and held, by account."""
    found = Counter({account: each.available for account, each in money.funds.items()})
    for each in money.reservations.values():
        found[each.account] += each.granted - each.settled
    return found


@given(requests, stored_money(), closed_journals)
def test_money_only_moves_between_an_account_and_its_reservations(
    asked: list[LeaseRequest], money: LockedMoney, closed: set[str]
) -> None:
    grants = apply(asked, money, closed=closed)

    assert balances(after(money, grants)) == balances(money)
    assert grants.changes.keys() == money.funds.keys()


@given(requests, stored_money(), closed_journals)
def test_never_more_is_reserved_than_is_available(
    asked: list[LeaseRequest], money: LockedMoney, closed: set[str]
) -> None:
    grants = apply(asked, money, closed=closed)

    left = after(money, grants)
    for account, funds in money.funds.items():
        assert left.funds[account].available >= min(funds.available, 0)
    for turn in grants.turns:
        assert turn.available >= min(0, *(each.available for each in money.funds.values()))
    for each in left.reservations.values():
        assert 0 <= each.settled <= each.granted
        assert each.account != NEW or each.granted == 0


@given(requests, stored_money(), closed_journals)
def test_requests_that_arrive_again_change_nothing(
    asked: list[LeaseRequest], money: LockedMoney, closed: set[str]
) -> None:
    first = apply(asked, money, closed=closed)
    again = apply(asked, after(money, first), closed=closed)

    assert again.reservations == {}
    assert set(again.changes.values()) <= {0}


@given(requests, stored_money(), closed_journals)
def test_a_closed_journal_gets_neither_a_grant_nor_a_reservation(
    asked: list[LeaseRequest], money: LockedMoney, closed: set[str]
) -> None:
    grants = apply(asked, money, closed=closed)

    for key, each in grants.reservations.items():
        if each.journal in closed:
            assert each.granted <= money.reservations[key].granted


@given(requests, stored_money(), st.permutations([ADA, BOB, NEW]))
def test_accounts_do_not_affect_one_another(
    asked: list[LeaseRequest], money: LockedMoney, order: list[str]
) -> None:
    mixed = apply(asked, money)
    sorted_by_account = sorted(asked, key=lambda each: order.index(each.account))

    grouped = apply(sorted_by_account, money)

    assert grouped.reservations == mixed.reservations
    assert grouped.changes == mixed.changes
    assert sorted(grouped.turns, key=repr) == sorted(mixed.turns, key=repr)


@given(one_request, stored_money())
def test_a_waiting_request_gets_its_minimum_or_gives_its_credit_back(
    asked: LeaseRequest, money: LockedMoney
) -> None:
    (turn,) = apply([asked], money).turns

    mine, is_new = turn.reservation, turn.reservation.sequence == asked.sequence
    if asked.minimum and is_new and not is_enough(mine.granted, asked):
        before = money.reservations.get(ReservationKey(asked.account, asked.journal))
        assert before == mine or mine.granted <= max(mine.settled, asked.spent)


@given(requests, stored_money())
def test_no_credit_means_that_all_processes_together_have_less_than_the_minimum(
    asked: list[LeaseRequest], money: LockedMoney
) -> None:
    grants = apply(asked, money)
    left = after(money, grants)

    for number, turn in enumerate(grants.turns, start=1):
        account, journal = turn.request.account, turn.request.journal
        result = outcome(
            turn,
            everyone=everyone(left, account),
            moved_since=grants.moved[account] - turn.moved,
            now=NOON,
        )

        then = after(money, apply(asked[:number], money))
        others = [each for each in everyone(then, account).reserved if each.journal != journal]
        has = turn.available + sum(each.unspent for each in others)
        has_enough = is_enough(turn.reservation.granted, turn.request)
        is_poor = has < max(turn.request.minimum, 1)
        assert (result.status == "no_credit") == (is_poor and not has_enough)
        assert (result.retry_after_s is not None) == (result.status == "reserved_elsewhere")
        assert result.granted == turn.reservation.granted


def test_what_another_process_gives_back_later_counts_as_reserved_before() -> None:
    mine, other, _ = JOURNALS
    held = {ReservationKey(ADA, other): CreditReservation(ADA, other, granted=40)}
    money = LockedMoney({ADA: Funds("USD", 50)}, held)

    grants = apply(
        [request(1, journal=mine, minimum=60), request(1, journal=other, release=True)], money
    )

    waiting = outcome(
        grants.turns[0],
        everyone=everyone(after(money, grants), ADA),
        moved_since=grants.moved[ADA] - grants.turns[0].moved,
        now=NOON,
    )
    assert waiting.status == "reserved_elsewhere"


def everyone(money: LockedMoney, account: str, *, demand: float = 0.0) -> AllProcesses:
    mine = [each for each in money.reservations.values() if each.account == account]
    return AllProcesses([ReservedCredit(each.journal, each.unspent, NOON) for each in mine], demand)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_the_shares_of_all_processes_add_up_to_the_rate_limit(demands: list[float]) -> None:
    total = sum(demand + 1 for demand in demands)

    shares = [
        outcome(
            Turn(request(1), CreditReservation(ADA, JOURNAL, demand=demand), 0, 0, False),
            everyone=AllProcesses([], total),
            moved_since=0,
            now=NOON,
        ).share
        for demand in demands
    ]

    assert abs(sum(shares) - 1) < 1e-9
    assert min(shares) > 0


@given(reservations(ADA, JOURNAL), small, st.booleans())
def test_settling_an_event_takes_its_amount_once(
    reservation: CreditReservation, amount: int, charged: bool
) -> None:
    settled = settle(reservation, amount=amount, charged=charged)

    after_it = settled.reservation
    assert after_it is not None
    held = after_it.granted - after_it.settled
    change = settled.available + held - (reservation.granted - reservation.settled)
    assert change == (-amount if charged else 0)
    assert after_it.settled - after_it.returned - (reservation.settled - reservation.returned) == (
        amount if charged else 0
    )


@given(reservations(ADA, JOURNAL))
def test_reclaiming_leaves_nothing_to_spend(reservation: CreditReservation) -> None:
    reclaimed = reclaim(reservation)

    assert reclaimed.unspent == 0
    assert reclaimed.granted == reclaimed.settled == reservation.settled
    assert reclaim(reclaimed) == reclaimed
