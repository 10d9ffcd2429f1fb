"""A closed queue is opened again by ``connect`` or ``async with``, in any loop; what was closed stays closed."""

from __future__ import annotations

import asyncio

import pytest

from beeq import Queue, QueueClosed, sync
from beeq.service import QueueService


def test_a_queue_of_a_module_works_in_loop_after_loop(valkey, queue_name):
    """As in two tests, or two starts of a server: the handler was given when the module was imported."""
    queue = Queue(queue_name, redis=valkey.url)

    @queue.process(concurrency=3)
    async def double(job):
        return 2 * job.data

    async def use(number):
        async with queue:
            running = asyncio.create_task(queue.run())
            job = await queue.enqueue(number)
            result = await job.result(timeout=5000)
            await queue.close()
            await running
            return result

    assert [asyncio.run(use(number)) for number in (1, 2, 3)] == [2, 4, 6]
    assert (queue.handler, queue.concurrency) == (double, 3)


async def test_connect_opens_a_closed_queue_again(make_queue):
    queue = make_queue(is_worker=False)
    await queue.enqueue("first")
    await queue.close()
    assert not queue.is_running()
    await queue.connect()
    assert queue.is_running()
    assert (await queue.enqueue("second")).id == "2"


async def test_many_may_open_it_again_at_once(make_queue):
    queue = make_queue(is_worker=False)
    await queue.connect()
    await queue.close()
    await asyncio.gather(*(queue.connect() for _ in range(20)))
    jobs = await asyncio.gather(*(queue.enqueue(n) for n in range(20)))
    assert len({job.id for job in jobs}) == 20


async def test_only_connect_opens_it_again(make_queue):
    queue = make_queue()
    await queue.connect()
    await queue.close()
    for call in (queue.ready, queue.check_health, lambda: queue.enqueue({}), queue.run):
        with pytest.raises(QueueClosed):
            await call()
    with pytest.raises(QueueClosed):
        queue.process(lambda _job: None)


async def test_who_waits_from_before_hears_that_it_was_closed(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue("never run")
    unsaved = queue.create_job("late")
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)
    await queue.close()
    await queue.connect()
    for call in (waiting, job.result(), job.remove(), unsaved.save()):
        with pytest.raises(QueueClosed):
            await call
    found = await queue.get_job(job.id)
    assert await found.is_in_set("waiting")


async def test_listeners_stay_with_the_queue(make_queue):
    queue, plain, awaited = make_queue(), [], []

    async def slow(job, _result):
        await asyncio.sleep(0)
        awaited.append(job.data)

    queue.on("succeeded", lambda job, _result: plain.append(job.data)).on("succeeded", slow)
    for number in (1, 2):
        async with queue:
            queue.process(lambda _job: None)
            await (await queue.enqueue(number)).result(timeout=5000)
    queue.off("succeeded", slow)
    async with queue:
        queue.process(lambda _job: None)
        await (await queue.enqueue(3)).result(timeout=5000)
    assert (plain, awaited) == ([1, 2, 3], [1, 2])


def test_a_listener_may_come_before_the_next_loop_opens_it(valkey, queue_name):
    queue, heard = Queue(queue_name, redis=valkey.url), []

    async def use():
        queue.once("ready", lambda: heard.append("ready"))
        async with queue:
            await queue.enqueue({})
            await asyncio.sleep(0)

    asyncio.run(use())
    asyncio.run(use())
    assert heard == ["ready", "ready"]


async def test_a_handler_given_in_a_loop_ends_with_the_queue(make_queue):
    queue = make_queue()
    async with queue:
        queue.process(lambda _job: "old")
        assert await (await queue.enqueue({})).result(timeout=5000) == "old"
    async with queue:
        queue.process(lambda _job: "new")
        assert await (await queue.enqueue({})).result(timeout=5000) == "new"


def test_a_blocking_queue_is_opened_again(valkey, queue_name):
    queue = sync.Queue(queue_name, redis=valkey.url)
    for number in ("1", "2"):
        with queue:
            assert queue.enqueue({}).id == number
        with pytest.raises(QueueClosed):
            queue.enqueue({})
    with queue:
        queue.destroy()


def test_a_service_is_opened_again_in_another_loop(valkey, queue_name):
    service = QueueService(redis=valkey.url, prefix=queue_name)

    async def use(job_id):
        async with service:
            job = {"id": job_id, "webhookUrl": "https://example.com/", "payload": {}}
            await service.add_webhook_job(job)
            status = await service.get_job_status(job_id)
            assert status is not None
            return status["status"]

    assert [asyncio.run(use(job_id)) for job_id in ("a", "b")] == ["queued", "queued"]

    async def destroy():
        async with service:
            await asyncio.gather(*(queue.destroy() for queue in service.queues.values()))

    asyncio.run(destroy())


async def test_a_queue_that_is_open_keeps_its_redis_and_prefix(make_queue):
    queue = make_queue(is_worker=False)
    await queue.connect()
    with pytest.raises(RuntimeError, match="open already"):
        queue.use(prefix="other")


def test_a_closed_queue_may_use_another_redis(valkey, queue_name):
    queue = Queue(queue_name, redis="redis://127.0.0.1:1")

    @queue.process
    async def double(job):
        return 2 * job.data

    async def work():
        async with queue:
            job = await queue.enqueue(21)
            await queue.run(burst=True)
            result = await job.result()
            await queue.destroy()
            return result

    for prefix in ("bq", "other"):
        queue.use(redis=valkey.url, prefix=prefix)
        assert asyncio.run(work()) == 42
        assert queue.keys.jobs.startswith(prefix)


def test_a_blocking_queue_may_use_other_settings_too(valkey, queue_name):
    queue = sync.Queue(queue_name, redis="redis://127.0.0.1:1")
    queue.use(redis=valkey.url, keep_failed="1d")
    assert str(queue.settings.keep_failed) == "1d"
    with queue:
        assert queue.enqueue(1).id == "1"
        with pytest.raises(RuntimeError, match="open already"):
            queue.use(prefix="other")
        queue.destroy()


def test_a_queue_not_yet_open_may_use_another_redis_and_prefix():
    queue = Queue("mail", redis="redis://127.0.0.1:1", prefix="a", stall_interval=7000)

    @queue.process(concurrency=4)
    async def send(_job):
        pass

    queue.use(redis="redis://127.0.0.1:2", prefix="b")
    assert (queue.keys.jobs, queue.settings.prefix) == ("b:mail:jobs", "b")
    assert queue.settings.stall_interval == 7000
    assert (queue.handler, queue.concurrency) == (send, 4)
    assert queue.connector.shown == "redis://127.0.0.1:2"
    with pytest.raises(ValueError, match="Redis URL"):
        queue.use(redis="nonsense")
    assert queue.connector.shown == "redis://127.0.0.1:2"
