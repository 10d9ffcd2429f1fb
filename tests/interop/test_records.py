"""One wire: records, ids, options and keys, written by either side and read by the other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Job, Queue
from tests.interop.handlers import handle
from tests.support.node_bee import NodeBee

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]
Redis = redis.asyncio.Redis

PAYLOADS: list[Any] = [
    {},
    [],
    {"text": 'quotes " and \\ and /', "controls": "\x00\x01\b\t\n\f\r\x1f\x7f"},
    {"größe": "naïve ☃ 𝄞", "line separators": "\u2028\u2029"},
    {"numbers": [0, 1, -1, 1.5, -0.25, 2**53 - 1, -(2**53 - 1), 123456789.125]},
    {"nested": [[[[{"deep": [None, True, False]}]]]], "empty": ["", {}, []]},
    [1, "two", {"three": 3}],
    "just text",
    7,
    True,
]


@pytest.fixture
async def queue(make_queue: MakeQueue) -> Queue:
    return make_queue(is_worker=False, delayed_debounce=1)


async def raw(redis: Redis, queue: Queue, job_id: str) -> str:
    text = await redis.hget(queue.keys.jobs, job_id)
    assert text is not None
    return str(text)


def without_times(text: str) -> str:
    members = json.loads(text)
    for name in ("timestamp", "delay"):
        if name in members["options"]:
            members["options"][name] = 0
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("data", PAYLOADS)
async def test_both_sides_write_the_same_record(queue: Queue, node: NodeBee, redis: Redis, data: Any) -> None:
    """Byte for byte, but for the time of creation."""
    due_ms = queue.now_ms() + 3_600_000
    job = queue.create_job(data).retries(3).backoff("exponential", 100).timeout(50).delay_until(due_ms)
    await job.save()
    ask = {"retries": 3, "backoff": ["exponential", 100], "timeout": 50, "delayUntil": due_ms}
    theirs = await node.save(data, **ask)
    assert without_times(await raw(redis, queue, job.saved_id())) == without_times(
        await raw(redis, queue, theirs)
    )


@pytest.mark.parametrize("data", PAYLOADS)
async def test_node_reads_what_python_wrote(queue: Queue, node: NodeBee, data: Any) -> None:
    job = await queue.enqueue(data, retries=2, backoff=("fixed", 10), timeout=50)
    seen = await node.job(job.saved_id())
    assert seen == {
        "id": job.id,
        "data": data,
        "options": job.options,
        "status": "created",
        "progress": 0,
    }


@pytest.mark.parametrize("data", PAYLOADS)
async def test_python_reads_what_node_wrote(queue: Queue, node: NodeBee, data: Any) -> None:
    job_id = await node.save(data, retries=2, backoff=["fixed", 10], timeout=50)
    found = await queue.get_job(job_id)
    assert found is not None
    seen = await node.job(job_id)
    assert {
        "id": found.id,
        "data": found.data,
        "options": found.options,
        "status": found.status,
        "progress": found.progress,
    } == seen
    assert found.data == data


@pytest.mark.parametrize("falsy", [None, False, 0, ""])
async def test_a_falsy_payload_becomes_an_object_on_both_sides(
    queue: Queue, node: NodeBee, falsy: Any
) -> None:
    job = await queue.create_job(falsy).save()
    theirs = await node.save(falsy)
    assert (await node.job(job.saved_id()))["data"] == {}
    found = await queue.get_job(theirs)
    assert found is not None
    assert found.data == {}


@pytest.mark.parametrize("data", [False, 0, ""])
async def test_an_enqueued_falsy_value_is_an_object_to_node_only(
    make_queue: MakeQueue, make_node: MakeNode, redis: Redis, data: Any
) -> None:
    """It stays what it is in Redis, until an attempt by Node writes the record again."""
    producer = make_queue(is_worker=False)
    job = await producer.enqueue(data, retries=1)
    assert json.loads(await raw(redis, producer, job.saved_id()))["data"] == data
    node = await make_node(concurrency=1)
    await node.until("succeeded")
    assert json.loads(await raw(redis, producer, job.saved_id()))["data"] == {}


async def test_option_keys_unknown_to_either_side_survive_its_rewrite(
    make_queue: MakeQueue, make_node: MakeNode, redis: Redis
) -> None:
    extra = {"x-trace": {"id": "größe", "hops": [1, 2.5]}, "priority": 7}
    producer = make_queue(is_worker=False)
    node = await make_node(concurrency=1)
    job = producer.create_job({"act": "throw", "value": "x"}).backoff("fixed", 5)
    job.options |= extra
    job.options["backoff"]["jitter"] = 0.5
    await job.save()
    await node.until("failed:fatal")
    after_node = json.loads(await raw(redis, producer, job.saved_id()))["options"]
    await node.kill()
    await job.retry()
    worker = make_queue()
    worker.process(handle)
    finished = await worker.get_job(job.saved_id())
    assert finished is not None
    with pytest.raises(Exception, match="x"):
        await finished.result(timeout=10_000)
    after_python = json.loads(await raw(redis, producer, job.saved_id()))["options"]
    for options in (after_node, after_python):
        assert {key: options[key] for key in extra} == extra
        assert options["backoff"] == {"strategy": "fixed", "delay": 5, "jitter": 0.5}
    assert len(after_python["stacktraces"]) == 2


async def test_a_record_of_an_old_peer_without_progress_is_worked_on(
    make_queue: MakeQueue, redis: Redis
) -> None:
    """Peers up to 1.3 write none."""
    worker = make_queue()
    await redis.hset(
        worker.keys.jobs,
        "old",
        '{"data":{"act":"return","value":1},"options":{"timestamp":1},"status":"created"}',
    )
    await redis.lpush(worker.keys.waiting, "old")
    worker.process(handle)
    job = await worker.get_job("old")
    assert job is not None
    assert await job.result(timeout=10_000) == 1


async def test_ids_are_counted_by_one_counter(queue: Queue, node: NodeBee) -> None:
    ids = []
    for _ in range(3):
        ids.append((await queue.enqueue({})).id)
        ids.append(await node.save({}))
    assert ids == ["1", "2", "3", "4", "5", "6"]
    assert (await queue.check_health()).newest_job == (await node.call("checkHealth"))["newestJob"] == 6


async def test_an_id_of_the_other_side_is_not_given_twice(queue: Queue, node: NodeBee) -> None:
    assert (await queue.enqueue({"by": "Python"}, id="same")).id == "same"
    assert await node.save({"by": "Node"}, id="same") is None
    assert await node.save({"by": "Node"}, id="größe 2") == "größe 2"
    existing = await queue.enqueue({"by": "Python"}, id="größe 2")
    assert (existing.id, existing.is_new, existing.data) == ("größe 2", False, {"by": "Node"})
    assert [(await node.job(job_id))["data"]["by"] for job_id in ("same", "größe 2")] == ["Python", "Node"]
    assert (await queue.check_health()).waiting == 2


async def test_an_automatic_id_steps_over_a_name_that_node_chose(queue: Queue, node: NodeBee) -> None:
    """bee-queue's own second job would be lost."""
    await node.save({}, id="2")
    assert [(await queue.enqueue({})).id for _ in range(3)] == ["1", "3", "4"]


async def test_both_adds_leave_the_same_keys(
    make_queue: MakeQueue, make_node: MakeNode, redis: Redis
) -> None:
    """Waiting and delayed, chosen and automatic ids, duplicates, one and many at once."""
    due_ms = 4_000_000_000_000
    asks: list[dict[str, Any]] = [
        {"data": {"n": 1}},
        {"data": {"n": 2}, "id": "chosen"},
        {"data": {"n": 3}, "id": "chosen"},
        {"data": {"n": 4}, "delayUntil": due_ms + 5},
        {"data": {"n": 5}, "delayUntil": due_ms, "id": "earlier"},
        {"data": {"n": 6}, "delayUntil": due_ms + 9, "id": "earlier"},
    ]

    def job_of(queue: Queue, ask: dict[str, Any]) -> Job:
        job = queue.create_job(ask["data"]).set_id(ask.get("id"))
        return job.delay_until(ask["delayUntil"]) if "delayUntil" in ask else job

    async def snapshot(queue: Queue) -> Any:
        keys = queue.keys
        records = await redis.hgetall(keys.jobs)
        return (
            {job_id: without_times(str(text)) for job_id, text in records.items()},
            await redis.lrange(keys.waiting, 0, -1),
            await redis.zrange(keys.delayed, 0, -1, withscores=True),
            await redis.get(keys.id),
            sorted(str(key).rpartition(":")[2] for key in await redis.keys(queue.to_key("*"))),
        )

    ours = make_queue(is_worker=False)
    for ask in asks:
        await job_of(ours, ask).save()
    assert await ours.save_all([job_of(ours, {**ask, "id": None}) for ask in asks]) == {}
    from_python = await snapshot(ours)
    assert await ours.destroy() > 0

    node = await make_node(isWorker=False)
    await node.call("save", jobs=asks)
    await node.call("saveAll", jobs=[{key: ask[key] for key in ask if key != "id"} for ask in asks])
    assert await snapshot(ours) == from_python


@pytest.mark.parametrize("head", [True, False])
async def test_only_a_new_first_delayed_job_is_announced_by_both(
    queue: Queue, node: NodeBee, redis: Redis, head: bool
) -> None:
    due_ms = queue.now_ms() + 3_600_000
    await queue.enqueue({}, delay_until=due_ms)
    later_ms = due_ms + (-1000 if head else 1000)
    async with redis.pubsub() as channel:
        await channel.subscribe(queue.keys.earlier_delayed)
        await channel.get_message(timeout=5)
        await node.save({}, delayUntil=later_ms)
        await queue.enqueue({}, delay_until=later_ms - (1 if head else 0))
        await redis.publish(queue.keys.earlier_delayed, "end")
        heard = []
        while (message := await channel.get_message(timeout=5)) and message["data"] != "end":
            heard.append(message["data"])
    assert heard == ([str(later_ms), str(later_ms - 1)] if head else [])


async def test_destroyed_by_python_nothing_is_left_for_node(
    make_queue: MakeQueue, node: NodeBee, redis: Redis
) -> None:
    worker = make_queue()
    worker.process(handle)
    done = await worker.enqueue({"act": "return", "value": 1})
    await node.save({}, delayUntil=worker.now_ms() + 3_600_000)
    await done.result(timeout=10_000)
    await worker.close()
    destroyer = make_queue(is_worker=False)
    assert await destroyer.destroy() >= 4
    assert await redis.keys(destroyer.to_key("*")) == []
    assert (await node.call("checkHealth"))["newestJob"] == 0
    assert await node.save({}) == "1"


async def test_destroyed_by_node_the_queue_begins_anew_for_python(
    make_queue: MakeQueue, node: NodeBee, redis: Redis
) -> None:
    """Node leaves beeq's own keys; an old result must not answer for a new job."""
    worker = make_queue()
    worker.process(handle)
    old = await worker.enqueue({"act": "return", "value": "old"})
    assert await old.result(timeout=10_000) == "old"
    await worker.close()
    assert await node.call("destroy") >= 3
    left = {key for key in await redis.keys(worker.to_key("*")) if ":beeq:" not in key}
    assert left == set()
    new_worker = make_queue()
    new = await new_worker.enqueue({"act": "flaky", "times": 0, "value": "new"})
    assert new.id == old.id
    new_worker.process(handle)
    assert await new.result(timeout=10_000) == "new"
