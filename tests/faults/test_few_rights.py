"""A worker whose Redis user may not end a wait, or may not wait: it takes jobs within a second, and closes in time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from beeq import RedisRefused
from tests.support.waiting import pause

pytestmark = pytest.mark.more_rights("users of its own")

#: What a busy machine may add.
SLACK_S = 2.0
CANNOT_END_A_WAIT = {
    "managed": ("-@dangerous", "-@admin"),
    "no client commands": ("-client",),
    "no client id": ("-client|id",),
    "no client unblock": ("-client|unblock",),
}
CANNOT_WAIT = {
    "no blocking": ("-@blocking",),
    "no blmove": ("-blmove",),
    "neither": ("-blmove", "-client"),
}
EVERY_LACK = {**CANNOT_END_A_WAIT, **CANNOT_WAIT}


@pytest.fixture
async def admin(own_valkey):
    async with own_valkey.client(decode_responses=True) as client:
        yield client


@pytest.fixture
def allow(admin):
    """``await allow("-client")``: the user ``bee`` may do everything but that."""

    async def allow(*rights: str) -> None:
        await admin.execute_command(
            "ACL", "SETUSER", "bee", "reset", "on", ">pw", "~*", "&*", "+@all", *rights
        )

    return allow


@pytest.fixture
def url(own_valkey) -> str:
    return f"redis://bee:pw@127.0.0.1:{own_valkey.port}"


@pytest.fixture
def producer(make_queue, own_valkey):
    return make_queue(redis=own_valkey.url, is_worker=False)


@pytest.fixture
def waiting_worker(make_queue, url, admin, eventually):
    """``await waiting_worker()``: one that may BLMOVE, and waits in it."""

    async def start(**settings):
        worker = make_queue(redis=url, **settings)
        worker.process(lambda job: job.data)
        await eventually(lambda: is_waiting(admin))
        return worker

    return start


async def is_waiting(admin, *, for_s: int = 0) -> bool:
    clients = await admin.client_list(_type="normal")
    return any(each["cmd"] == "blmove" and int(each["idle"]) >= for_s for each in clients)


def refusals(record) -> list[str]:
    assert all(isinstance(error, RedisRefused) for (error,) in record.of("error"))
    return [str(error) for (error,) in record.of("error")]


@pytest.mark.parametrize("timeout_ms", [0, 1000])
@pytest.mark.parametrize("lack", EVERY_LACK.values(), ids=EVERY_LACK.keys())
async def test_an_idle_worker_closes_in_time_and_says_why_once(
    allow, make_queue, url, producer, recorder, lack, timeout_ms
):
    await allow(*lack)
    worker = make_queue(redis=url)
    record = recorder(worker, "error")
    worker.process(lambda job: job.data)
    assert await (await producer.enqueue("x")).result(timeout=5000) == "x"
    await pause(0.1)
    began = time.monotonic()
    await worker.close(timeout_ms)
    assert time.monotonic() - began < 1 + SLACK_S
    said = refusals(record)
    assert len(said) == len(set(said)) == (2 if len(lack) == 2 and lack[0] == "-blmove" else 1)


async def test_an_idle_worker_with_all_rights_closes_at_once(allow, waiting_worker):
    await allow()
    worker = await waiting_worker()
    await worker.close(0)


@pytest.mark.parametrize("lack", CANNOT_END_A_WAIT.values(), ids=CANNOT_END_A_WAIT.keys())
async def test_a_job_that_comes_while_its_worker_closes_is_not_lost(
    allow, waiting_worker, producer, admin, expect_errors, lack
):
    await allow(*lack)
    for _ in range(5):
        worker = await waiting_worker()
        jobs = [producer.create_job(n) for n in range(10)]
        closing = asyncio.ensure_future(worker.close(1000))
        for job in jobs:
            await job.save()
        await closing
        assert await admin.llen(worker.keys.active) == 0
    health = await producer.check_health()
    assert health.waiting + health.succeeded == 50


async def test_who_loses_the_right_to_end_a_wait_closes_in_time(
    allow, waiting_worker, producer, admin, recorder
):
    await allow()
    worker = await waiting_worker()
    record = recorder(worker, "error")
    await allow("-client|unblock")
    began = time.monotonic()
    closing = asyncio.ensure_future(worker.close(1000))
    job = await producer.enqueue("x")
    await closing
    assert time.monotonic() - began < 1 + SLACK_S
    assert len(refusals(record)) == 1
    later = await producer.enqueue("y")
    left = [
        job_id for job_id in (job.id, later.id) if job_id in await admin.lrange(worker.keys.waiting, 0, -1)
    ]
    assert later.id in left
    assert await admin.llen(worker.keys.active) == 0


async def test_who_gets_the_right_to_end_a_wait_waits_longer(
    allow, waiting_worker, producer, admin, eventually, monkeypatch, expect_errors
):
    monkeypatch.setattr("beeq.worker.pump.blocking_fetch._ASK_RIGHT_S", 0.2)
    await allow("-client")
    worker = await waiting_worker()
    await allow()
    await eventually(lambda: is_waiting(admin, for_s=2))
    assert await (await producer.enqueue("x")).result(timeout=5000) == "x"
    await worker.close(1000)


@pytest.mark.parametrize("lack", EVERY_LACK.values(), ids=EVERY_LACK.keys())
async def test_a_burst_needs_no_right_to_wait(allow, make_queue, url, producer, expect_errors, lack):
    await allow(*lack)
    jobs = [await producer.enqueue(n) for n in range(1, 21)]
    worker = make_queue(redis=url)
    worker.process(lambda job: job.data, concurrency=3)
    async with asyncio.timeout(5 + SLACK_S):
        await worker.run(burst=True)
    assert [await job.result() for job in jobs] == list(range(1, 21))


@pytest.mark.parametrize("lack", CANNOT_WAIT.values(), ids=CANNOT_WAIT.keys())
async def test_who_may_not_wait_asks_within_a_second(allow, make_queue, url, producer, recorder, lack):
    await allow(*lack)
    worker = make_queue(redis=url)
    record = recorder(worker, "error")
    began: list[float] = []
    worker.process(lambda _job: began.append(time.monotonic()))
    for count in range(1, 5):
        await pause(0.3 * count)  # at any moment of the rest
        pushed = time.monotonic()
        await (await producer.enqueue("x")).result(timeout=5000)
        assert began[-1] - pushed < 1 + SLACK_S
    assert len(refusals(record)) == len(lack)


async def test_who_may_wait_at_last_goes_back_to_it(allow, make_queue, url, admin, eventually, recorder):
    await allow("-blmove")
    worker = make_queue(redis=url)
    record = recorder(worker, "error")
    worker.process(lambda job: job.data)
    await record.until("error")
    assert not await is_waiting(admin, for_s=1)
    await allow()
    await eventually(lambda: is_waiting(admin, for_s=1))
    await allow("-blmove")
    await record.until("error", count=2, within_s=10)
    assert "blmove" in refusals(record)[1]


@pytest.mark.parametrize("right", ["-time", "-ping", "-select", "-hello", "-info", "-wait", "-role"])
async def test_without_another_right_jobs_run_all_the_same(
    allow, make_queue, url, producer, expect_errors, right
):
    await allow(right)
    worker = make_queue(redis=url)
    worker.process(lambda job: job.data)
    assert await (await producer.enqueue("x")).result(timeout=5000) == "x"
    await worker.close(1000)


async def test_without_rename_a_pause_for_everyone_moves_in_steps(
    allow, waiting_worker, make_queue, url, admin, eventually
):
    await allow("-rename")
    worker = await waiting_worker()
    operator = make_queue(redis=url, is_worker=False)
    await eventually(lambda: admin.zcard(operator.keys.workers))
    await operator.pause(everyone=True)
    await eventually(lambda: worker.worker_health().is_queue_paused)
    jobs = [operator.create_job(n) for n in range(1, 2501)]
    await operator.save_all(jobs)

    async def are_hidden() -> bool:
        return bool(await admin.llen(operator.keys.hidden) == len(jobs))

    await eventually(are_hidden)
    ids = [job.id for job in jobs]
    assert await admin.lrange(operator.keys.hidden, 0, -1) == ids[::-1]
    await worker.close()
    await operator.resume()
    assert await admin.lrange(operator.keys.waiting, 0, -1) == ids[::-1]
    assert await admin.exists(operator.keys.hidden, operator.keys.paused) == 0


async def test_who_may_not_trim_hides_no_job_and_doubles_none(
    allow, make_queue, own_valkey, url, admin, expect_errors
):
    await allow("-rename", "-ltrim")  # as rules of an earlier version for producers are
    operator = make_queue(redis=url, is_worker=False)
    ids = [(await operator.enqueue(n)).id for n in range(2)]
    (seconds, _) = await admin.time()
    await admin.zadd(operator.keys.workers, {"one": seconds * 1000})
    with pytest.raises(RedisRefused, match=r"needs \+ltrim"):
        await operator.pause(everyone=True)
    assert await admin.lrange(operator.keys.waiting, 0, -1) == ids[::-1]
    await admin.lmove(operator.keys.waiting, operator.keys.hidden, "RIGHT", "LEFT")
    with pytest.raises(RedisRefused, match=r"needs \+ltrim"):
        await operator.resume()
    assert await admin.lrange(operator.keys.waiting, 0, -1) == ids[1:]
    assert await admin.lrange(operator.keys.hidden, 0, -1) == ids[:1]
    other = make_queue(redis=own_valkey.url, is_worker=False)
    assert (await other.resume()) is not None
    assert await admin.lrange(operator.keys.waiting, 0, -1) == ids[::-1]
    assert expect_errors


async def test_who_may_not_trim_raises_jobs_during_a_pause(
    allow, make_queue, own_valkey, url, admin, eventually, expect_errors
):
    await allow("-rename", "-ltrim")
    other = make_queue(redis=own_valkey.url, is_worker=False, activate_delayed_jobs=False)
    hidden, waiting = [(await other.enqueue(n)).id for n in range(2)]
    await admin.lmove(other.keys.waiting, other.keys.hidden, "RIGHT", "LEFT")
    raiser = make_queue(redis=url, is_worker=False)
    raised: list[int] = []
    raiser.on("raised jobs", raised.append)
    job = await raiser.enqueue(2, delay_until=timedelta(seconds=0.1))
    await eventually(lambda: raised == [1])
    assert await admin.lrange(other.keys.waiting, 0, -1) == [job.id, waiting]
    assert await admin.lrange(other.keys.hidden, 0, -1) == [hidden]
    assert expect_errors
    await other.resume()
    assert await admin.lrange(other.keys.waiting, 0, -1) == [job.id, waiting, hidden]


@pytest.mark.parametrize("lack", ["no client commands", "neither"])
async def test_a_worker_that_cannot_end_a_wait_pauses_in_time(
    allow, url, make_queue, producer, eventually, expect_errors, lack
):
    await allow(*EVERY_LACK[lack])
    worker = make_queue(redis=url)
    worker.process(lambda job: job.data)
    assert await (await producer.enqueue(1)).result(timeout=9000) == 1
    await producer.pause()
    await eventually(lambda: worker.worker_health().is_queue_paused)
    await pause(0.6)  # the wait that was under way is over
    job = await producer.enqueue(2)
    await pause(0.6)  # nothing shall happen
    assert await job.is_in_set("waiting")
    await producer.resume()
    assert await job.result(timeout=9000) == 2
    assert all(isinstance(error, RedisRefused) for error in expect_errors)
