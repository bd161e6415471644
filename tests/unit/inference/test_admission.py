"""Admission control: however many accounts are greedy, capacity remains for the next."""

import asyncio
import threading
from collections import deque
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.api.admission import (
    MIN_IN_PROGRESS,
    ConcurrencyLimiter,
    FairSlots,
    MemoryLimiter,
    Saturated,
    fits,
)
from services.inference.api.decoding import Decoder

KIND = "/v1/models/wine:predict"


class TestShares:
    def test_an_account_alone_gets_half(self) -> None:
        assert fits(1, own=3, taken=3, total=8)
        assert not fits(1, own=4, taken=4, total=8)

    def test_an_account_with_nothing_gets_what_is_left(self) -> None:
        assert fits(1, own=0, taken=7, total=8)
        assert not fits(1, own=0, taken=8, total=8)

    @given(amounts=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=200))
    def test_greedy_accounts_leave_something_for_the_next(
        self, amounts: list[tuple[int, int]]
    ) -> None:
        total = 1_000
        taken = dict.fromkeys(range(6), 0)

        for account, amount in amounts:
            if fits(amount, own=taken[account], taken=sum(taken.values()), total=total):
                taken[account] += amount

        left = total - sum(taken.values())
        assert left >= total // 7 - 6 * 40

    @given(st.integers(1, 50))
    def test_any_number_of_greedy_accounts_get_equal_shares(self, accounts: int) -> None:
        total, taken = 10_000, [0] * accounts

        grew = True
        while grew:
            grew = False
            for number in range(accounts):
                if fits(1, own=taken[number], taken=sum(taken), total=total):
                    taken[number] += 1
                    grew = True

        assert max(taken) - min(taken) <= 1
        assert total - sum(taken) >= max(taken)


class TestConcurrencyLimiter:
    def test_an_account_over_its_share_is_refused_and_others_are_not(self) -> None:
        limiter = ConcurrencyLimiter(4)

        with limiter.acquire("greedy", kind=KIND), limiter.acquire("greedy", kind=KIND):
            with pytest.raises(Saturated) as refusal, limiter.acquire("greedy", kind=KIND):
                pass
            with limiter.acquire("modest", kind=KIND):
                assert limiter.taken == 3

        assert refusal.value.headers["Retry-After"] == "1"
        assert limiter.taken == 0

    def test_one_slot_serves_one_request(self) -> None:
        limiter = ConcurrencyLimiter(1)

        with limiter.acquire("a", kind=KIND), pytest.raises(Saturated):
            limiter.check("b", kind=KIND)

        with limiter.acquire("b", kind=KIND):
            assert limiter.taken == 1

    def test_nothing_is_kept_of_refused_requests_for_other_models(self) -> None:
        limiter = ConcurrencyLimiter(1)

        with limiter.acquire("a", kind=KIND):
            for number in range(100):
                with pytest.raises(Saturated), limiter.acquire("b", kind=("load", str(number))):
                    pass

        assert limiter._queues == {}

    def test_a_slot_is_released_after_an_error(self) -> None:
        limiter = ConcurrencyLimiter(4)

        with pytest.raises(RuntimeError), limiter.acquire("a", kind=KIND):
            raise RuntimeError

        assert limiter.taken == 0


class Flood:
    """Requests to one model that take their turns, on a clock of their own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limiter = ConcurrencyLimiter(1_000, max_wait_s=2, clock=lambda: self.now)
        self._running: deque[tuple[str, ExitStack]] = deque()

    def in_progress(self, account: str) -> int:
        return sum(each == account for each, _ in self._running)

    def begin(self, account: str) -> bool:
        """Begin a request unless it is refused."""
        slot = ExitStack()
        try:
            slot.enter_context(self.limiter.acquire(account, kind=KIND))
        except Saturated:
            return False
        self._running.append((account, slot))
        return True

    def fill(self, *accounts: str) -> None:
        """Let accounts begin as many requests as they may."""
        while any([self.begin(account) for account in accounts]):
            pass

    def answer(self, number: int, *, per_s: float) -> None:
        """Answer the oldest requests, one after the other; for each, its account tries another."""
        for _ in range(number):
            self.now += 1 / per_s
            account, slot = self._running.popleft()
            slot.close()
            self.begin(account)

    def end(self) -> None:
        """Answer everything at once."""
        while self._running:
            self._running.popleft()[1].close()


def flooded(account: str, *, per_s: float) -> Flood:
    """Return a flood whose pace is known."""
    flood = Flood()
    flood.fill(account)
    flood.answer(500, per_s=per_s)
    return flood


class TestQueue:
    def test_is_no_longer_than_can_be_answered_in_time(self) -> None:
        flood = Flood()
        flood.fill("a", "b")
        assert flood.limiter.taken > 600

        flood.answer(2_000, per_s=100)

        # 100 a second for 2 s are 200. Of these, two accounts may use a third each.
        assert flood.in_progress("a") == pytest.approx(66, abs=2)
        assert flood.in_progress("b") == pytest.approx(66, abs=2)

    def test_refuses_before_a_request_is_complete(self) -> None:
        flood = flooded("greedy", per_s=50)

        with pytest.raises(Saturated):
            flood.limiter.check("greedy", kind=KIND)
        flood.limiter.check("modest", kind=KIND)

    def test_of_a_slow_model_does_not_shorten_that_of_another(self) -> None:
        flood = flooded("a", per_s=1)

        with pytest.raises(Saturated):
            flood.limiter.check("a", kind=KIND)
        flood.limiter.check("a", kind="another")

    def test_of_even_the_slowest_model_has_room_for_a_few(self) -> None:
        flood = Flood()
        flood.begin("a")
        flood.begin("a")
        flood.answer(10, per_s=1 / 60)

        flood.fill("a")

        assert flood.in_progress("a") == MIN_IN_PROGRESS // 2

    def test_follows_the_pace(self) -> None:
        flood = flooded("a", per_s=10)
        slow = flood.in_progress("a")

        flood.answer(2_000, per_s=1_000)
        flood.fill("a")

        assert slow == MIN_IN_PROGRESS // 2
        assert flood.in_progress("a") == 500

    def test_forgets_the_pace_of_a_flood_that_is_over(self) -> None:
        flood = Flood()
        flood.fill("a")
        flood.answer(10, per_s=1)
        flood.end()

        flood.fill("a")

        assert flood.in_progress("a") == 500


class TestMemoryLimiter:
    def test_bytes_are_counted_on_arrival_and_released_together(self) -> None:
        memory = MemoryLimiter(100)

        with memory.reserve("a") as reservation:
            reservation.grow(20)
            reservation.grow(30)
            with pytest.raises(Saturated):
                reservation.grow(1)
            with memory.reserve("b") as other:
                other.grow(25)
                assert memory.taken == 75

        assert memory.taken == 0
        with memory.reserve("a") as reservation:
            reservation.grow(50)

    def test_the_only_request_of_an_account_may_take_everything_once_complete(self) -> None:
        memory = MemoryLimiter(100)

        with memory.reserve("a") as reservation, memory.reserve("b") as other:
            reservation.grow(40)
            other.grow(20)
            with pytest.raises(Saturated):
                reservation.grow(41, is_complete=True)
            reservation.grow(40, is_complete=True)
            with memory.reserve("a") as second, pytest.raises(Saturated):
                second.grow(1, is_complete=True)

        assert memory.taken == 0


class TestDecoder:
    async def test_a_body_is_decoded_in_a_thread_unless_it_is_light(self) -> None:
        decoder = Decoder()

        light = await decoder.run(threading.current_thread, is_light=True, account="a")
        heavy = await decoder.run(threading.current_thread, is_light=False, account="a")

        assert light is threading.current_thread()
        assert heavy is not light
        decoder.close()


class TestFairSlots:
    async def test_an_account_alone_cannot_take_every_slot(self) -> None:
        slots, leave = FairSlots(4), asyncio.Event()
        order: list[str] = []

        async def work(account: str) -> None:
            async with slots.acquire(account):
                order.append(account)
                await leave.wait()

        tasks = [asyncio.create_task(work(account)) for account in "aaaab"]
        await asyncio.sleep(0)
        at_once = list(order)
        leave.set()
        await asyncio.gather(*tasks)

        assert at_once == ["a", "a", "b"]
        assert sorted(order) == ["a", "a", "a", "a", "b"]

    async def test_accounts_take_turns_however_many_callers_each_has(self) -> None:
        lock, order = FairSlots(1), []

        async def work(account: str) -> None:
            async with lock.acquire(account):
                order.append(account)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(account) for account in "aaaaabbc"))

        assert order == ["a", "a", "b", "c", "a", "b", "a", "a"]

    async def test_a_cancelled_caller_passes_the_lock_on(self) -> None:
        lock, leave = FairSlots(1), asyncio.Event()
        order: list[str] = []

        async def work(account: str) -> None:
            async with lock.acquire(account):
                order.append(account)
                await leave.wait()

        first, waiting, given, last = [asyncio.create_task(work(name)) for name in "abcd"]
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        leave.set()
        await first  # which passes the lock to "c"
        given.cancel()
        await asyncio.wait_for(last, 10)

        assert (order[0], order[-1]) == ("a", "d")
        async with asyncio.timeout(10), lock.acquire("e"):
            pass
