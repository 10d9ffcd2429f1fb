"""The events channel: what is written on it, to the byte, and what a bad message may do, which is nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beeq.redis import scripts

pytestmark = pytest.mark.fast


def heard_by(emitter, events=("succeeded", "retrying", "failed", "progress"), prefix=""):
    """Note each event of ``emitter`` as (name, *arguments)."""
    heard = []
    for event in events:
        emitter.on(prefix + event, lambda *args, event=event: heard.append((event, *args)))
    return heard


async def test_the_messages_are_bee_queues_to_the_byte(make_queue, redis):
    worker = make_queue()
    messages: list[Any] = []
    async with redis.pubsub() as channel:
        await channel.subscribe(worker.keys.events)
        await channel.get_message(timeout=5)

        @worker.process
        async def handler(job):
            if job.id == "2" and job.options["retries"]:
                raise ValueError("größe")
            if job.id == "3":
                raise ValueError("no")
            return await job.report_progress({"p": 1}) and None if job.id == "1" else [1.5, None]

        for options in ({}, {"retries": 1}, {}):
            job = await worker.enqueue({}, **options)
            await asyncio.wait([asyncio.ensure_future(job.result(timeout=5000))])
        while len(messages) < 5:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
            messages.append(message["data"])
    assert messages == [
        '{"id":"1","event":"progress","data":{"p":1}}',
        '{"id":"1","event":"succeeded"}',
        '{"id":"2","event":"retrying","data":"größe"}',
        '{"id":"2","event":"succeeded","data":[1.5,null]}',
        '{"id":"3","event":"failed","data":"no"}',
    ]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "7",
        "[]",
        "{}",
        '{"id":"1"}',
        '{"event":"succeeded"}',
        '{"id":null,"event":"succeeded"}',
        '{"id":{"x":1},"event":"succeeded"}',
        '{"id":"1","event":"succeeded","data":NaN}',
        '{"id":"1","event":7}',
        "not json",
        b"\xff\xfe",
        "[" * 5000,
    ],
)
async def test_a_message_that_is_no_event_harms_nobody(make_queue, redis, recorder, message):
    """bee-queue's process dies of it."""
    queue = make_queue(is_worker=False)
    record = recorder(queue, "job succeeded", "job end")
    job = queue.create_job({})
    heard = heard_by(job)
    await job.save()
    await redis.publish(queue.keys.events, message)
    await redis.publish(queue.keys.events, '{"id":"1","event":"end"}')
    assert await record.until("job end") == [("1", None)]
    assert record.of("job succeeded") == []
    assert heard == []


@pytest.mark.parametrize("event", ["error", "unknown", "__init__"])
async def test_events_of_unknown_names_are_told_and_harm_nobody(make_queue, redis, recorder, event):
    """An event named ``error`` throws in bee-queue."""
    queue = make_queue(is_worker=False)
    record = recorder(queue, f"job {event}")
    job = queue.create_job({})
    job.on("succeeded", lambda _value: None)
    await job.save()
    await redis.publish(queue.keys.events, json.dumps({"id": job.id, "event": event, "data": 1}))
    assert await record.until(f"job {event}") == [(job.id, 1)]


@pytest.mark.real_redis(
    "fakeredis does not list its databases: each event is checked, and this job has not begun"
)
async def test_an_event_that_overtakes_the_reply_to_save_is_not_lost(
    make_queue, redis, recorder, monkeypatch, eventually
):
    """In bee-queue the job object never hears of it."""
    queue = make_queue(is_worker=False)
    await queue.ready()
    ask, late_replies = queue.pipeline._connection.ask_each, []

    def ask_late(packed, on_end):
        left = len(packed)

        async def reply_late(*outcome):
            await redis.publish(queue.keys.events, '{"id":"1","event":"succeeded","data":"early"}')
            await eventually(lambda: queue._session.own_events.is_holding)
            on_end(*outcome)

        def on_late_end(*outcome):
            nonlocal left
            left -= 1
            if left:
                on_end(*outcome)  # of the note that the queue is in use, which goes first
            else:
                late_replies.append(asyncio.get_running_loop().create_task(reply_late(*outcome)))

        is_save = any(scripts.add_jobs.sha.encode() in command for command in packed)
        ask(packed, on_late_end if is_save else on_end)

    monkeypatch.setattr(queue.pipeline._connection, "ask_each", ask_late)
    job = queue.create_job({})
    heard = recorder(job, "succeeded")
    await job.save()
    assert await heard.until("succeeded") == [("early",)]
    assert await job.result(timeout=1000) == "early"
    assert len(late_replies) == 1


async def test_an_event_that_comes_with_the_reply_to_save_is_not_lost(make_queue, recorder, monkeypatch):
    """The caller that gets the job can listen before anything is delivered."""
    queue = make_queue(is_worker=False)
    await queue.ready()
    await queue.enqueue({})
    ask = queue.pipeline._connection.ask_each

    def ask_and_hear(packed, on_end):
        def on_end_and_hear(*outcome):
            on_end(*outcome)
            queue.event_hub.receive(b'{"id":"2","event":"failed","data":"at once"}')

        is_save = any(scripts.add_jobs.sha.encode() in command for command in packed)
        ask(packed, on_end_and_hear if is_save else on_end)

    monkeypatch.setattr(queue.pipeline._connection, "ask_each", ask_and_hear)
    heard = recorder(await queue.enqueue({}), "failed")
    [(error,)] = await heard.until("failed")
    assert str(error) == "at once"


async def test_news_of_an_earlier_job_with_the_id_no_longer_counts(make_queue, redis):
    producer, worker = make_queue(is_worker=False), make_queue(remove_on_success=True)

    @worker.process
    async def handler(job):
        return job.data

    for n in range(3):
        job = await producer.enqueue(f"run {n}", id="same")
        assert await job.result(timeout=5000) == f"run {n}"
