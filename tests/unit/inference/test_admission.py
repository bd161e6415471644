"""Admission control: however many accounts are greedy, capacity remains for the next."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.api.admission import (
    ConcurrencyLimiter,
    FairSlots,
    MemoryLimiter,
    Saturated,
    fits,
)
from services.inference.api.decoding import Decoder


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

        with limiter.acquire("greedy"), limiter.acquire("greedy"):
            with pytest.raises(Saturated) as refusal, limiter.acquire("greedy"):
                pass
            with limiter.acquire("modest"):
                assert limiter.taken == 3

        assert refusal.value.headers["Retry-After"] == "1"
        assert limiter.taken == 0

    def test_one_slot_serves_one_request(self) -> None:
        limiter = ConcurrencyLimiter(1)

        with limiter.acquire("a"), pytest.raises(Saturated), limiter.acquire("b"):
            pass

        with limiter.acquire("b"):
            assert limiter.taken == 1

    def test_a_slot_is_released_after_an_error(self) -> None:
        limiter = ConcurrencyLimiter(4)

        with pytest.raises(RuntimeError), limiter.acquire("a"):
            raise RuntimeError

        assert limiter.taken == 0


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
