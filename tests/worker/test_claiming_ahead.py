"""Jobs claimed ahead: they begin in order, and whatever holds one up, the others run elsewhere."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Any

import pytest
import redis as redis_py

from beeq.worker.attempts.runner import Runner
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.pump.exchange_packer import ExchangePacker

#: Long enough for a busy machine: what is claimed ahead begins within four times this.
BOUND_MS = 250
TRAINING = 30


class Works:
    """A worker that notes its jobs, and at one job waits for the test."""

    def __init__(
        self, make_queue: Any, *, concurrency: int = 1, bound_ms: int = BOUND_MS, **settings: Any
    ) -> None:
        self.queue = make_queue(claim_ahead_ms=bound_ms, **settings)
        self.ran: list[int] = []
        self.at_it, self.go_on = asyncio.Event(), asyncio.Event()
        self.stop_at = TRAINING + 10
        self.takes_s = 0.0
        self.most_ahead = 0
        self.queue.process(self._handle, concurrency)

    async def _handle(self, job: Any) -> None:
        self.ran.append(job.data)
        self.most_ahead = max(self.most_ahead, len(self.ahead))
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if job.data == self.stop_at:
            self.at_it.set()
            await self.go_on.wait()

    @property
    def ahead(self) -> list[str]:
        """Ids of the jobs that are claimed and have not begun."""
        scheduler = self.queue._consumer.worker.pump.scheduler
        return [raw_id.decode() for raw_id, _, _, _ in scheduler.places.ahead.jobs()]


@pytest.fixture
def operator(make_queue: Any) -> Any:
    return make_queue(is_worker=False, activate_delayed_jobs=False)


async def fill(operator: Any, count: int = TRAINING + 60) -> list[Any]:
    """Save jobs whose data is 1, 2, 3, …"""
    jobs = [operator.create_job(n) for n in range(1, count + 1)]
    await operator.save_all(jobs)
    return jobs


async def stopped(works: Works) -> int:
    """Wait until a job blocks some that are claimed ahead; return how many."""
    await asyncio.wait_for(works.at_it.wait(), 30)
    return len(works.ahead)


async def test_they_begin_in_their_order(make_queue: Any, operator: Any, eventually: Any) -> None:
    jobs = await fill(operator)
    works = Works(make_queue)
    assert await stopped(works) > 0
    works.go_on.set()
    await eventually(lambda: len(works.ran) == len(jobs), 30)
    assert works.ran == list(range(1, len(jobs) + 1))
    await eventually(lambda: not works.ahead, 10)


async def test_each_runs_once_at_any_concurrency(
    make_queue: Any, operator: Any, eventually: Any, redis: Any
) -> None:
    jobs = await fill(operator, 500)
    works = Works(make_queue, concurrency=7)
    works.go_on.set()
    await eventually(lambda: len(works.ran) == len(jobs), 60)
    assert sorted(works.ran) == list(range(1, len(jobs) + 1))
    assert await redis.exists(operator.keys.ahead) == 0


async def test_behind_one_that_waits_they_go_back_in_order(
    make_queue: Any, operator: Any, eventually: Any, redis: Any
) -> None:
    await fill(operator)
    works = Works(make_queue)
    assert await stopped(works) > 0
    await eventually(lambda: not works.ahead, 30)

    async def is_back() -> bool:
        return bool(await redis.lrange(operator.keys.waiting, -2, -1) == ["42", "41"])

    await eventually(is_back, 30)
    assert await redis.hkeys(operator.keys.claims) == ["40"]
    works.go_on.set()
    await eventually(lambda: works.ran == list(range(1, TRAINING + 61)), 30)


async def test_a_blocked_loop_gives_them_back_by_its_thread(
    make_queue: Any, operator: Any, eventually: Any, valkey: Any
) -> None:
    await fill(operator)
    client = redis_py.Redis.from_url(valkey.url, decode_responses=True)
    seen: list[str | None] = []
    queue = make_queue(claim_ahead_ms=50)

    def next_id() -> Any:
        found: Any = client.lindex(operator.keys.waiting, -1)
        return found

    @queue.process
    async def handler(job: Any) -> None:
        if job.data == TRAINING + 10:
            seen.append(next_id())
            ends_s = time.monotonic() + 20
            while next_id() != "41" and time.monotonic() < ends_s:
                time.sleep(0.01)  # noqa: ASYNC251 - it blocks the loop
            seen.append(next_id())

    await eventually(lambda: len(seen) == 2, 30)
    assert seen[0] != "41", "nothing was claimed ahead"
    assert seen[1] == "41"
    await queue.close()
    client.close()


async def test_a_pause_gives_them_back_at_once(
    make_queue: Any, operator: Any, eventually: Any, redis: Any
) -> None:
    await fill(operator)
    works = Works(make_queue, bound_ms=60_000)
    assert await stopped(works) > 0
    await operator.pause()
    await eventually(lambda: not works.ahead, 10)

    async def is_back() -> bool:
        return bool(await redis.hkeys(operator.keys.claims) == ["40"])

    await eventually(is_back, 10)
    assert (await redis.lrange(operator.keys.waiting, -2, -1)) == ["42", "41"]


async def test_closing_gives_them_back_first(
    make_queue: Any, operator: Any, eventually: Any, redis: Any
) -> None:
    await fill(operator)
    works = Works(make_queue, bound_ms=60_000)
    assert await stopped(works) > 0
    closing = asyncio.create_task(works.queue.close(timeout=20_000))

    async def is_back() -> bool:
        return bool(await redis.hkeys(operator.keys.claims) == ["40"])

    await eventually(is_back, 10)
    works.go_on.set()
    await closing
    assert works.ran[-1] == 40
    assert await redis.llen(operator.keys.active) == 0


async def test_one_that_was_cancelled_never_begins(make_queue: Any, operator: Any, eventually: Any) -> None:
    jobs = await fill(operator)
    works = Works(make_queue, bound_ms=60_000)
    assert await stopped(works) > 1
    assert await operator.cancel_job("41")
    claimed = works.queue._consumer.worker.pump.scheduler.claimed
    await eventually(lambda: b"41" not in claimed, 10)
    works.go_on.set()
    await eventually(lambda: len(works.ran) == len(jobs) - 1, 30)
    assert 41 not in works.ran


@pytest.mark.usefixtures("expect_errors")
async def test_one_that_was_removed_writes_nothing(
    make_queue: Any, operator: Any, eventually: Any, redis: Any
) -> None:
    jobs = await fill(operator)
    works = Works(make_queue, bound_ms=60_000)
    assert await stopped(works) > 1
    await operator.remove_job("41")
    works.go_on.set()
    await eventually(lambda: works.ran and works.ran[-1] == len(jobs), 30)

    async def are_recorded() -> bool:
        return bool(await redis.scard(operator.keys.succeeded) == len(jobs) - 1)

    await eventually(are_recorded, 10)
    assert not await redis.hexists(operator.keys.jobs, "41")


@pytest.mark.parametrize("settings", [{"bound_ms": 0}, {"max_stalls": 0}])
async def test_turned_off_nothing_is_claimed_ahead(
    make_queue: Any, operator: Any, eventually: Any, settings: dict[str, int]
) -> None:
    jobs = await fill(operator)
    works = Works(make_queue, **settings)
    assert await stopped(works) == 0
    works.go_on.set()
    await eventually(lambda: len(works.ran) == len(jobs), 30)


async def test_a_burst_claims_nothing_ahead(make_queue: Any, operator: Any) -> None:
    jobs = await fill(operator)
    works = Works(make_queue, bound_ms=60_000)
    works.stop_at = -1
    await works.queue.run(burst=True, catch_signals=False)
    assert works.ran == list(range(1, len(jobs) + 1))


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_handlers_of_some_ms_are_shared_as_ever(
    make_queue: Any, operator: Any, eventually: Any, concurrency: int
) -> None:
    both = [Works(make_queue, concurrency=concurrency, bound_ms=5) for _ in range(2)]
    for works in both:
        works.takes_s, works.stop_at = 0.006, -1
        await works.queue.ready()
    jobs = await fill(operator, 200)
    await eventually(lambda: sum(len(works.ran) for works in both) == len(jobs), 30)
    assert [works.most_ahead for works in both] == [0, 0]
    counts = [len(works.ran) for works in both]
    assert min(counts) >= len(jobs) * 0.4, f"one worker has run most: {counts}"


async def test_handlers_that_end_at_once_do_not_nest(
    make_queue: Any, operator: Any, eventually: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on a handler that waits for nothing has ended when its task is made."""
    depths: set[int] = set()

    def end_at_once(runner: Runner, attempt: Any) -> None:
        depths.add(sum(1 for _ in traceback.walk_stack(None)))
        runner._on_end(attempt, None, None)

    monkeypatch.setattr(Runner, "start", end_at_once)
    jobs = await fill(operator, 2000)
    make_queue(claim_ahead_ms=BOUND_MS).process(print)

    async def are_recorded() -> bool:
        return bool(await redis.scard(operator.keys.succeeded) == len(jobs))

    await eventually(are_recorded, 30)
    assert max(depths) - min(depths) < 30, "handlers start within each other"


async def test_a_job_at_an_idle_worker_costs_two_calls(
    make_queue: Any, operator: Any, redis: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One claims it, one takes its outcome; these two also say that the queue is empty then."""
    calls: list[Any] = []
    packed = ExchangePacker.packed

    def note(packer: ExchangePacker, call: Any) -> bytes:
        calls.append(call)
        return packed(packer, call)

    monkeypatch.setattr(ExchangePacker, "packed", note)

    async def waits() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    works = Works(make_queue)
    works.stop_at = 0
    for n in range(1, TRAINING + 21):
        await eventually(waits)
        if n == TRAINING + 1:  # by now jobs are claimed ahead
            assert any(call.ahead for call in calls)
            calls.clear()
        await (await operator.enqueue(n)).result(timeout=10_000)
    await eventually(waits)
    assert len(calls) == 2 * 20


async def test_where_none_is_claimed_ahead_no_thread_looks_for_them(
    make_queue: Any, operator: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeats' thread would take the interpreter from an idle worker 30 times a second."""
    looks: list[float] = []
    look = Heartbeat._look_ahead

    def note(heartbeat: Heartbeat, seen_s: float) -> None:
        looks.append(seen_s)
        look(heartbeat, seen_s)

    monkeypatch.setattr(Heartbeat, "_look_ahead", note)
    works = Works(make_queue)
    works.stop_at = 0
    for n in range(1, TRAINING + 21):
        await (await operator.enqueue(n)).result(timeout=10_000)
    assert looks == []
    await fill(operator)
    await eventually(lambda: looks)
