"""The hash chain, and what a process keeps of failed attempts."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import rfc8785

from services.auth.audit.chain import FIRST_PREVIOUS, entry_document, find_break, hash_entry
from services.auth.audit.failures import BURST, RESERVE, FailureLog


@dataclass(frozen=True)
class Entry:
    id: int
    time: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    actor: str | None = "ada"
    action: str = "client_created"
    target: str | None = "tgc_1"
    address: str | None = None
    hash: str = ""


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    previous = FIRST_PREVIOUS
    for number in range(1, length + 1):
        entry = Entry(id=number)
        previous = hash_entry(entry, previous=previous)
        entries.append(replace(entry, hash=previous))
    return entries


def first_break(entries: list[Entry]) -> int | None:
    return find_break(entries, previous_id=0, previous_hash=FIRST_PREVIOUS)


def test_a_hash_covers_the_previous_one_and_the_entry_as_clients_see_it() -> None:
    shown: dict[str, str | int | None] = {
        "id": 1,
        "time": "2026-01-02T03:04:05.000000Z",
        "actor": "ada",
        "action": "client_created",
        "target": "tgc_1",
        "address": None,
    }

    assert entry_document(Entry(id=1)) == shown
    expected = hashlib.sha256(b"0" * 64 + rfc8785.dumps(shown)).hexdigest()
    assert hash_entry(Entry(id=1), previous="0" * 64) == expected


def test_the_time_zone_of_an_entry_makes_no_difference() -> None:
    elsewhere = Entry(id=1, time=Entry(id=1).time.astimezone(timezone(timedelta(hours=5))))

    assert entry_document(elsewhere) == entry_document(Entry(id=1))


def test_an_intact_chain_has_no_break() -> None:
    assert first_break(chain(5)) is None


def test_a_changed_removed_or_swapped_entry_breaks_the_chain() -> None:
    intact = chain(5)
    changed = [replace(each, actor="eve") if each.id == 3 else each for each in intact]
    rehashed = list(intact)
    rehashed[2] = replace(changed[2], hash=hash_entry(changed[2], previous=intact[1].hash))
    removed = [each for each in intact if each.id != 3]
    swapped = [intact[0], intact[2], intact[1], *intact[3:]]

    assert [first_break(each) for each in (changed, rehashed, removed, swapped)] == [3, 4, 4, 3]
    assert first_break(intact[1:]) == 2


class TestFailureLog:
    def test_failures_are_returned_once(self) -> None:
        failures = FailureLog(clock=lambda: 0.0)
        failures.note("login_failed", target="ada", address="203.0.113.1")

        [noted] = failures.take()

        assert (noted.action, noted.actor, noted.target) == ("login_failed", None, "ada")
        assert noted.address == "203.0.113.1"
        assert failures.take() == []

    def test_a_flood_is_counted_but_not_kept(self) -> None:
        failures = FailureLog(clock=lambda: 0.0)
        for _ in range(BURST + 234):
            failures.note("login_failed", address=None)

        noted = failures.take()

        assert len(noted) == BURST + 1
        assert (noted[-1].action, noted[-1].target) == ("failures_omitted", "234")

    def test_a_flood_elsewhere_leaves_the_reserve_to_own_failures(self) -> None:
        failures = FailureLog(clock=lambda: 0.0)
        for _ in range(BURST):
            failures.note("token_rejected", address=None, reserve=RESERVE)
        failures.note("login_failed", address=None)

        found = Counter(each.action for each in failures.take())

        assert found == {
            "token_rejected": BURST - RESERVE,
            "login_failed": 1,
            "failures_omitted": 1,
        }

    def test_the_allowance_grows_back_with_time_up_to_its_limit(self) -> None:
        now = 0.0
        failures = FailureLog(clock=lambda: now)
        for _ in range(BURST):
            failures.note("login_failed", address=None)
        failures.take()
        now = 3.0
        for _ in range(10):
            failures.note("login_failed", address=None)

        soon = failures.take()
        now = 10 * BURST
        for _ in range(BURST + 1):
            failures.note("login_failed", address=None)
        much_later = failures.take()

        assert [each.action for each in soon] == ["login_failed"] * 3 + ["failures_omitted"]
        assert len(much_later) == BURST + 1

    def test_failures_that_could_not_be_stored_are_kept(self) -> None:
        failures = FailureLog()
        failures.note("first", address=None)
        taken = failures.take()
        failures.note("second", address=None)

        failures.put_back(taken)

        assert [each.action for each in failures.take()] == ["first", "second"]
