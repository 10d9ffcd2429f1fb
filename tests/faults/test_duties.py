"""Each background duty of a queue, broken once in each way: it is back shortly, and everything goes on.

A duty is broken in the coroutine that it runs; the blocking fetch, which runs none while it waits, in what it
does before. The health is read while the error is reported, and again when the duty is back.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from beeq import DutyEnded, DutySilent, RedisUnavailable
from beeq.maintenance.delayed_activator import DelayedActivator
from beeq.maintenance.overdue_watch import OverdueWatch
from beeq.maintenance.pause_watch import PauseWatch
from beeq.maintenance.retention import Retention
from beeq.maintenance.stall_check import StallCheck
from beeq.redis.connection import Connection
from beeq.redis.pubsub import Subscriber
from beeq.worker.attempts.runner import Runner
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.pump.pump import Pump
from beeq.worker.scheduling.scheduler import Scheduler
from beeq.worker.worker import Worker
from tests.support.breaking import WAYS, Breaker, end
from tests.support.waiting import eventually

STALL_INTERVAL_MS = 1500
#: The coroutine that each duty runs.
RUNS: dict[str, tuple[type[Any], str]] = {
    "pump": (Pump, "run"),
    "heartbeat": (Heartbeat, "run"),
    "delayed activator": (DelayedActivator, "run"),
    "stall check": (StallCheck, "repeat"),
    "subscriber": (Subscriber, "run"),
    "pause watch": (PauseWatch, "run"),
    "overdue watch": (OverdueWatch, "run"),
    "retention": (Retention, "repeat"),
}


def health_of(queue: Any, name: str) -> Any:
    return next(duty for duty in queue.worker_health().duties if duty.name == name)


class Watch:
    """Writes down what a queue reports, and its health at that moment."""

    def __init__(self, queue: Any, name: str) -> None:
        self.errors: list[BaseException] = []
        self.healths: list[Any] = []
        self._queue, self._name = queue, name
        queue.on("error", self._write_down)

    def _write_down(self, error: BaseException) -> None:
        if not isinstance(error, RedisUnavailable):
            self.errors.append(error)
            self.healths.append(self._queue.worker_health())

    async def until_it_is_back(self, way: str) -> None:
        """Wait until the duty has broken, said so, and is back."""
        # The bound leaves a loaded machine its time; an idle one needs less than a stall interval.
        await eventually(lambda: self.errors, 10)
        (error,), (health,) = self.errors, self.healths
        kind = {"raises": ZeroDivisionError, "hangs": DutySilent}.get(way, DutyEnded)
        assert type(error) is kind
        assert not health.is_healthy
        assert {duty.name: duty.state for duty in health.duties}[self._name] == "restarting"
        await eventually(lambda: health_of(self._queue, self._name).state == "running", 10)
        duty = health_of(self._queue, self._name)
        assert duty.restarts == 1
        assert type(error).__name__ in duty.error
        assert self._queue.worker_health().is_healthy


async def begin(make_queue: Any) -> tuple[Any, asyncio.Event, list[str]]:
    """Return a worker that is at work on an empty queue, what its handlers wait for, and what they did."""
    queue = make_queue(
        stall_interval=STALL_INTERVAL_MS,
        delayed_debounce=1,
        initial_redis_failure_retry_delay=50,
        keep_succeeded="1d",
    )
    release, done = asyncio.Event(), []

    async def handler(job: Any) -> str:
        done.append(job.data)
        if job.data == "long":
            await release.wait()
        return "done"

    queue.process(handler, concurrency=2)
    await queue.ready()
    assert await (await queue.enqueue("first")).result(timeout=10_000) == "done"  # subscribes, too
    await eventually(
        lambda: {*RUNS, "blocking fetch"} <= {duty.name for duty in queue.worker_health().duties}
    )
    return queue, release, done


async def assert_all_is_done(
    queue: Any, release: asyncio.Event, done: list[str], redis: Any, *, waits_for_checks: bool = True
) -> None:
    """Jobs run, delayed ones are raised, events are heard, running jobs are beaten for, stalls are found.

    By the checks that come by themselves, which takes two stall intervals; or else by two that are asked for.
    """
    keys = queue.keys
    assert await (await queue.enqueue("again")).result(timeout=10_000) == "done"
    assert await (await queue.enqueue("delayed", delay_until=0.05)).result(timeout=10_000) == "done"
    heard = asyncio.Event()
    queue.on("job succeeded", lambda *_event: heard.set())
    long = await queue.enqueue("long")
    await eventually(lambda: "long" in done)
    # As a check leaves it: the next one comes an interval later.
    async with redis.pipeline(transaction=True) as mark:
        mark.set(keys.stall_block, "1", px=STALL_INTERVAL_MS).sadd(keys.stalling, long.id)
        await mark.execute()
    await eventually(lambda: _is_gone(redis, keys, long.id))
    release.set()
    await asyncio.wait_for(heard.wait(), 30)
    stalled = await queue.create_job("stalled").set_id("stalled").save()
    await stalled.result(timeout=10_000)
    done.clear()
    # As a worker leaves it that has died.
    await redis.lpush(keys.active, "stalled")
    await redis.srem(keys.succeeded, "stalled")
    for _mark_then_move in range(0 if waits_for_checks else 2):
        await redis.delete(keys.stall_block)
        await queue.check_stalled_jobs()
    await eventually(lambda: "stalled" in done)
    await eventually(lambda: queue.worker_health().places_taken == 0)
    assert queue.worker_health().is_healthy


async def _is_gone(redis: Any, keys: Any, job_id: str) -> bool:
    return not await redis.sismember(keys.stalling, job_id)


async def run_twenty_jobs(queue: Any) -> None:
    """Work on twenty jobs; each runs once."""
    ran: list[str] = []
    queue.process(lambda job: ran.append(job.id), concurrency=2)
    jobs = [queue.create_job({}) for _ in range(20)]
    await queue.save_all(jobs)
    for job in jobs:
        await job.result(timeout=20_000)
    assert sorted(ran) == sorted(job.id for job in jobs), "each ran once"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RUNS)
async def test_a_duty_that_breaks_is_back_and_all_goes_on(make_queue, monkeypatch, redis, name, way):
    breaker = Breaker(monkeypatch, *RUNS[name])
    queue, release, done = await begin(make_queue)
    watch = Watch(queue, name)
    await eventually(breaker.has_begun)  # the heartbeat's is in a thread
    breaker.break_it(way)
    await watch.until_it_is_back(way)
    await assert_all_is_done(queue, release, done, redis, waits_for_checks=name == "stall check")
    assert len(watch.errors) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_blocking_fetch_that_breaks_is_back(make_queue, monkeypatch, redis, way):
    queue, release, done = await begin(make_queue)
    watch = Watch(queue, "blocking fetch")
    real, broken = Connection.learn_client_id, []

    async def learn_client_id(self: Connection) -> None:
        broken.append(way)
        if len(broken) == 1:
            await end(way)
            return
        await real(self)

    monkeypatch.setattr(Connection, "learn_client_id", learn_client_id)

    async def is_killed() -> bool:
        for client in await redis.client_list():
            if client["cmd"] == "blmove":
                await redis.client_kill_filter(_id=client["id"])
        return bool(broken)

    await eventually(is_killed)
    if way != "returns":  # then it goes on without the connection, and finds that out
        await watch.until_it_is_back(way)
        watch.errors.clear()
    await assert_all_is_done(queue, release, done, redis, waits_for_checks=False)
    assert watch.errors == []


async def test_a_queue_that_only_produces_is_supervised_too(make_queue, monkeypatch, eventually):
    breakers = [
        Breaker(monkeypatch, *RUNS[name]) for name in ("delayed activator", "subscriber", "stall check")
    ]
    queue = make_queue(is_worker=False, stall_interval=STALL_INTERVAL_MS)
    errors: list[BaseException] = []
    queue.on("error", errors.append)
    await queue.ready()
    await queue.check_stalled_jobs(200)
    await eventually(lambda: all(breaker.has_begun() for breaker in breakers))
    for breaker in breakers:
        breaker.break_it("is cancelled")
    await eventually(lambda: len(errors) == 3)
    names = {"delayed activator", "subscriber", "repeated stall check"}
    assert {error.duty for error in errors if isinstance(error, DutyEnded)} == names
    await eventually(lambda: queue.worker_health().is_healthy)
    health = queue.worker_health()
    assert {duty.name: duty.restarts for duty in health.duties} == dict.fromkeys(names, 1)
    assert (health.is_taking, health.concurrency, health.running) == (False, 0, 0)
    await queue.close()
    assert not queue.worker_health().is_healthy
    assert queue.worker_health().duties == ()


async def test_the_health_is_plain_enough_for_json(make_queue):
    queue = make_queue()
    queue.process(lambda _job: None, concurrency=3)
    await (await queue.enqueue({})).result(timeout=20_000)
    health = json.loads(json.dumps(queue.worker_health().as_dict()))
    assert (health["is_healthy"], health["is_taking"], health["concurrency"]) == (True, True, 3)
    pump = next(duty for duty in health["duties"] if duty["name"] == "pump")
    assert pump["state"] == "running"
    assert abs(pump["last_turn_ms"] - queue.now_ms()) < 60_000
    assert health["last_turn_ms"] >= pump["last_turn_ms"] - 1  # read and rounded one after the other


async def test_a_blocked_loop_shows_in_the_health(make_queue, monkeypatch):
    """Another thread reads it: a probe of the process, say."""
    queue = make_queue(stall_interval=500)
    await queue.ready()
    seen: list[Any] = []

    def read_later() -> None:
        time.sleep(1.3)  # in a thread: the loop is blocked meanwhile
        seen.append(queue.worker_health())

    reader = threading.Thread(target=read_later)
    reader.start()
    reader.join()
    assert seen[0].loop_silent_ms > 1000
    assert not seen[0].is_healthy
    await eventually(lambda: queue.worker_health().is_healthy)
    assert all(duty.restarts == 0 for duty in queue.worker_health().duties), "nobody hung but the loop"


async def test_one_defect_of_the_pump_loses_no_job(make_queue, monkeypatch, recorder):
    """Recording breaks once, between the outcomes of one call and the jobs that it brought."""
    real, broken = Worker.recorded, []

    def recorded(self: Worker, outcomes: Any) -> None:
        if not broken:
            broken.append(outcomes)
            raise ZeroDivisionError("a defect")
        real(self, outcomes)

    monkeypatch.setattr(Worker, "recorded", recorded)
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error")
    await run_twenty_jobs(queue)
    assert [type(error) for (error,) in record.of("error")] == [ZeroDivisionError]


@pytest.mark.parametrize("part", ["counted", "replied", "half replied"])
async def test_a_defect_at_a_reply_loses_no_call(make_queue, monkeypatch, recorder, eventually, part):
    owner: type[Any] = ExchangePacker if part == "counted" else Scheduler
    name = part.removeprefix("half ")
    real, replies = getattr(owner, name), []

    def take(self: Any, *parts: Any) -> Any:
        replies.append(parts)
        if len(replies) != 2:
            return real(self, *parts)
        if part == "half replied":  # the defect comes when the call is off the books
            self.calls_in_flight -= 1
            self.places.answered(parts[0])
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(owner, name, take)
    queue = make_queue(stall_interval=STALL_INTERVAL_MS, initial_redis_failure_retry_delay=20)
    record = recorder(queue, "error")
    await run_twenty_jobs(queue)
    assert [type(error) for (error,) in record.of("error")] == [ZeroDivisionError]
    scheduler = queue._consumer.worker.pump.scheduler
    await eventually(lambda: (scheduler.calls_in_flight, scheduler.places.taken) == (0, 0))


async def test_a_job_that_cannot_start_keeps_no_other_waiting(make_queue, monkeypatch, recorder, eventually):
    real, broken = Runner.start, []

    def start(self: Runner, attempt: Any) -> None:
        if not broken:
            broken.append(attempt)
            raise ZeroDivisionError("a defect")
        real(self, attempt)

    monkeypatch.setattr(Runner, "start", start)
    queue = make_queue(stall_interval=60_000)  # what is lost would stay so
    record = recorder(queue, "error")
    jobs = [queue.create_job({}) for _ in range(10)]
    await queue.save_all(jobs)
    ran: list[str] = []
    queue.process(lambda job: ran.append(job.id), concurrency=10)
    for job in jobs:
        await job.result(timeout=20_000)
    assert sorted(ran) == sorted(job.id for job in jobs), "each ran once"
    assert [type(error) for (error,) in record.of("error")] == [ZeroDivisionError]
    await eventually(lambda: not queue.worker_health().places_taken)


async def test_a_pump_that_always_fails_ends_the_worker_loudly(make_queue, monkeypatch, recorder):
    def packed(_self: Any, _call: Any) -> bytes:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(ExchangePacker, "packed", packed)
    queue = make_queue(stall_interval=STALL_INTERVAL_MS, initial_redis_failure_retry_delay=20)
    record = recorder(queue, "error")
    queue.process(lambda _job: None)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        await asyncio.wait_for(queue.run(catch_signals=False), 30)
    assert len(record.of("error")) == 5
    health = queue.worker_health()
    assert (health.is_healthy, health.is_taking) == (False, False)
    assert health.error == "ZeroDivisionError: a defect"
