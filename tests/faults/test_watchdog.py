"""A worker that is alive and does not work: it notices, says so, and repairs itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq import DutySilent, RedisRefused, RedisUnavailable, WorkerStuck
from beeq.redis.connection import Connection
from beeq.worker.pump.blocking_fetch import BlockingFetch
from beeq.worker.pump.pump import Pump
from tests.support.proxy import FirstExchange, proxy_to
from tests.support.waiting import pause

STALL_INTERVAL_MS = 600


def stuck(record: Any) -> list[str]:
    return [str(error) for (error,) in record.of("error") if isinstance(error, WorkerStuck)]


def unwell(queue: Any) -> Any:
    health = queue.worker_health()
    return None if health.is_healthy else health


async def test_places_that_nobody_holds_are_free_again(make_queue, monkeypatch, recorder, eventually):
    """Two outcomes get lost inside a worker of two: it would never take another job."""
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error")
    ran: list[str] = []
    real, lost = Pump.outcome_ready, []

    def outcome_ready(self: Pump, *arguments: Any) -> None:
        if len(lost) < 2:
            lost.append(arguments)
        else:
            real(self, *arguments)

    monkeypatch.setattr(Pump, "outcome_ready", outcome_ready)

    async def handler(job: Any) -> None:
        ran.append(job.id)

    queue.process(handler, concurrency=2)
    jobs = [await queue.enqueue({}) for _ in range(4)]
    await eventually(lambda: len(lost) == 2)
    seen = await eventually(lambda: unwell(queue))
    assert (seen.places_taken, seen.running) == (2, 0)
    for job in jobs:
        await job.result(timeout=20_000)
    assert {ran.count(job.id) for job in jobs} == {1, 2}, "what was lost has run again, the others have not"
    assert len(ran) == 6
    # On a busy machine it may also report that the worker took no jobs for long.
    (text,) = [each for each in stuck(record) if not each.startswith("the worker took none of ")]
    assert text == "2 places were taken by jobs that nobody ran (1, 2); they are free again"
    await eventually(lambda: queue.worker_health().is_healthy)
    assert queue.worker_health().places_taken == 0


async def test_a_place_taken_by_no_job_at_all_is_free_again(make_queue, recorder, eventually):
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error")
    queue.process(lambda _job: None)
    await (await queue.enqueue({})).result(timeout=20_000)
    pump = queue._consumer.worker.pump
    # As if a job had been claimed and lost on the way to its handler.
    pump.scheduler.places.taken += 1
    pump.scheduler.places.running += 1
    await eventually(lambda: stuck(record))
    await (await queue.enqueue({})).result(timeout=20_000)
    assert queue.worker_health().places_taken == 0


async def test_handlers_that_take_long_are_nobodys_leak(make_queue, recorder):
    queue = make_queue(stall_interval=300)
    release = asyncio.Event()

    @queue.process
    async def handler(_job: Any) -> None:
        await release.wait()

    job = await queue.enqueue({})
    asyncio.get_running_loop().call_later(1.5, release.set)
    await job.result(timeout=20_000)
    assert queue.worker_health().is_healthy  # an error would fail the test


async def test_a_fetch_that_never_began_keeps_no_job_waiting(make_queue, monkeypatch, recorder, eventually):
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error")
    real, skipped = BlockingFetch.start, []

    def start(self: BlockingFetch) -> None:
        if skipped:
            real(self)
        else:
            skipped.append(self)

    monkeypatch.setattr(BlockingFetch, "start", start)
    queue.process(lambda _job: None)
    await eventually(lambda: skipped)
    await (await queue.enqueue({})).result(timeout=20_000)
    assert len(stuck(record)) == 1
    await (await queue.enqueue({})).result(timeout=20_000)
    await eventually(lambda: queue.worker_health().is_healthy)


async def test_a_call_whose_end_got_lost_keeps_no_job_waiting(make_queue, monkeypatch, recorder, eventually):
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error")
    real, dropped = Connection.ask, []

    def ask(self: Connection, packed: Any, on_end: Any, **options: Any) -> None:
        # The calls that ask for jobs; a fetch has patience.
        if not options and len(dropped) < 2 and self is queue._consumer.worker.pump._connection:
            dropped.append(packed)
        else:
            real(self, packed, on_end, **options)

    queue.process(lambda _job: None, concurrency=3)
    await queue.ready()
    await eventually(lambda: queue.worker_health().last_turn_ms)
    monkeypatch.setattr(Connection, "ask", ask)
    queue._consumer.worker.look()
    jobs = [await queue.enqueue({}) for _ in range(3)]
    for job in jobs:
        await job.result(timeout=20_000)
    assert dropped
    assert stuck(record)
    assert {type(error) for (error,) in record.of("error")} <= {WorkerStuck, RedisUnavailable}
    await eventually(lambda: queue.worker_health().is_healthy)


async def test_a_recovery_of_many_calls_is_no_hang(make_queue, valkey, redis, recorder):
    """A reply is lost, and on a slow line the look for what it claimed takes longer than the patience."""
    async with proxy_to(valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, stall_interval=900)
        record = recorder(queue, "error", "succeeded")
        queue.process(lambda _job: asyncio.sleep(0))
        await queue.connect()
        await redis.hset(queue.keys.claims, mapping={f"other{n}": ":1" for n in range(10_000)})
        proxy.swallow = swallow = FirstExchange()
        proxy.lag_s = lambda _data: 0.02
        await make_queue(redis=valkey.url).enqueue({})
        await record.until("succeeded")
        assert swallow.has_come.is_set()
        assert not [error for (error,) in record.of("error") if isinstance(error, DutySilent)]
    await redis.delete(queue.keys.claims)


async def test_duties_that_wait_behind_saves_do_not_hang(make_queue, own_valkey, recorder):
    async with proxy_to(own_valkey.port) as proxy:
        proxy.limit(2_000_000)
        queue = make_queue(redis=proxy.url, stall_interval=900)  # a third of which is their patience
        record = recorder(queue, "error")
        queue.process(lambda _job: None)
        await queue.ready()
        for _ in range(2):
            await asyncio.gather(*[queue.enqueue("x" * 900_000) for _ in range(4)])
        assert not [error for (error,) in record.of("error") if isinstance(error, DutySilent)]
        assert {duty.restarts for duty in queue.worker_health().duties} == {0}


@pytest.mark.more_rights("a user of its own")
async def test_a_fetch_that_rests_for_long_keeps_no_job_waiting(make_queue, own_valkey, recorder):
    """The user may not block, so the fetch fails each time, and is tried again later and later."""
    async with own_valkey.client() as admin:
        await admin.execute_command(
            "ACL", "SETUSER", "bee", "on", ">pw", "~*", "&*", "+@all", "-blmove", "-blpop"
        )
    url = own_valkey.url.replace("redis://", "redis://bee:pw@")
    queue = make_queue(redis=url, stall_interval=2000, initial_redis_failure_retry_delay=60_000)
    record = recorder(queue, "error")
    queue.process(lambda _job: None)
    await queue.ready()
    await record.until("error")  # it rests from now on
    for _ in range(2):
        await (await queue.enqueue({})).result(timeout=20_000)
        await pause(2.5)
    assert {type(error) for (error,) in record.of("error")} == {RedisRefused}
