"""Live numbers: sent when they change, by one poller for all, with nothing that a screen would not show."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from beeq import QueueClosed, RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.web.page import live as live_module
from beeq.web.page import words
from beeq.web.page.live import Live, Topic
from beeq.web.page.store import QueueStore
from beeq.web.responses import Refusal
from tests.web.page.conftest import client_of


@pytest.fixture
async def store(valkey, prefix, monkeypatch):
    monkeypatch.setattr("beeq.web.page.store._COUNTS_FOR_S", 0.0)
    monkeypatch.setattr("beeq.web.page.store._NAMES_FOR_S", 0.0)
    monkeypatch.setattr("beeq.web.page.store._REST", 0)
    store = QueueStore(valkey.url, [prefix])
    yield store
    await store.close()


@pytest.fixture
async def live(store, monkeypatch):
    monkeypatch.setattr(live_module, "_EVERY_S", 0.05)
    live = Live(store)
    yield live
    await live.close()


@asynccontextmanager
async def messages(live: Live, topic: Topic, *, shown=words.preview):
    """Yield a function that returns the next message."""
    async with aclosing(live.events(topic, shown=shown)) as events:

        async def following() -> dict[str, Any]:
            async with asyncio.timeout(10):
                async for event in events:
                    if event.startswith(b"data: "):
                        assert event.endswith(b"\n\n")
                        return dict(json.loads(event[6:]))
            raise AssertionError("the stream has ended")

        yield following


async def test_a_listener_hears_of_changes_and_of_nothing_else(live, put, prefix):
    queue = await put("mail", {"n": 1})
    async with messages(live, Topic()) as following:
        (first,) = (await following())["queues"]
        assert (first["name"], first["waiting"]) == ("mail", 1)
        waiting = asyncio.create_task(following())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await queue.enqueue({"n": 2})
        assert (await waiting)["queues"][0]["waiting"] == 2


async def test_a_new_stream_begins_with_a_look_of_its_own(live, put, store, monkeypatch):
    queue = await put("mail", {"n": 1})
    async with messages(live, Topic()) as early:
        assert (await early())["queues"][0]["waiting"] == 1
        go_on = asyncio.Event()
        overview = store.overview

        async def delayed():
            await go_on.wait()
            return await overview()

        monkeypatch.setattr(store, "overview", delayed)
        await queue.enqueue({"n": 2})  # what a screen made now shows, and the poller has not seen
        async with messages(live, Topic()) as late:
            first = asyncio.create_task(late())
            await asyncio.sleep(0)
            go_on.set()
            assert (await first)["queues"][0]["waiting"] == 2


async def test_a_jobs_page_hears_of_its_state_and_progress(live, put, prefix):
    queue = await put("films")
    go_on = asyncio.Event()

    async def handler(job):
        await job.report_progress({"done": "<b>"})
        await go_on.wait()

    job = await queue.enqueue({"n": 1}, id="a/b")
    topic = Topic(prefix, "films", "a/b")
    async with messages(live, topic) as following:
        assert (await following())["job"] == {"state": "queued", "progress": ""}
        queue.process(handler)
        async with asyncio.timeout(10):
            while (await following())["job"] != {"state": "active", "progress": '{"done":"<b>"}'}:
                pass
        go_on.set()
        await job.result()
        async with asyncio.timeout(10):
            while (await following())["job"]["state"] != "succeeded":
                pass


@pytest.mark.parametrize("record", ["{", None])
async def test_a_job_that_cannot_be_read_stops_nobodys_numbers(live, put, redis, prefix, record):
    await put("mail", {"n": 1})
    odd = Keys(prefix, "odd")
    if record is None:
        await redis.set(odd.jobs, "of another type")
    else:
        await redis.hset(odd.jobs, "7", record)
    try:
        async with messages(live, Topic(prefix, "odd", "7")) as of_job, messages(live, Topic()) as following:
            assert "away" not in await of_job()
            message = await following()
            assert [each["waiting"] for each in message["queues"] if each["name"] == "mail"] == [1]
    finally:
        await redis.delete(odd.jobs)


async def test_fifty_open_pages_are_one_poller(live, put, prefix, monkeypatch):
    await put("mail", {"n": 1})
    looks = 0
    overview = live._store.overview

    async def counted():
        nonlocal looks
        looks += 1
        return await overview()

    monkeypatch.setattr(live._store, "overview", counted)
    monkeypatch.setattr(live_module, "_EVERY_S", 60.0)

    async def listen() -> None:
        async with messages(live, Topic()) as following:
            await following()

    await asyncio.gather(*(listen() for _ in range(50)))
    assert looks == 1


async def test_of_a_silent_redis_nobody_waits_for_others(store, monkeypatch):
    is_silent, looks = asyncio.Event(), 0

    async def count():
        nonlocal looks
        looks += 1
        await is_silent.wait()
        raise RedisUnavailable("silent")

    monkeypatch.setattr(store, "_count", count)
    asking = [asyncio.create_task(store.overview()) for _ in range(5)]
    given_up = asyncio.create_task(store.overview())
    await asyncio.sleep(0)
    given_up.cancel()
    is_silent.set()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asking, given_up, return_exceptions=True)
    assert [type(each) for each in answers] == [RedisUnavailable] * 5 + [asyncio.CancelledError]
    assert looks == 1
    monkeypatch.undo()
    assert (await store.overview()).queues == []


async def test_who_waits_for_counts_hears_of_the_close(store, monkeypatch):
    monkeypatch.setattr(store, "_count", asyncio.Event().wait)
    asking = asyncio.create_task(store.overview())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(QueueClosed):
        await asking


async def test_counts_of_before_an_act_are_not_shown_after_it(store, put, monkeypatch):
    monkeypatch.setattr("beeq.web.page.store._COUNTS_FOR_S", 60.0)
    queue = await put("mail", {"n": 1})
    count, go_on = store._count, asyncio.Event()

    async def slow_count():
        counted = await count()
        await go_on.wait()
        return counted

    await store.overview()
    store.forget_counts()
    monkeypatch.setattr(store, "_count", slow_count)
    before = asyncio.create_task(store.overview())
    await asyncio.sleep(0)
    counting = store._counting
    monkeypatch.setattr(store, "_count", count)
    await queue.enqueue({"n": 2})
    store.forget_counts()
    assert (await store.overview()).queues[0].stats.waiting == 2
    go_on.set()
    await before
    assert counting.done()
    assert (await store.overview()).queues[0].stats.waiting == 2


async def test_who_comes_long_after_the_last_sees_no_old_numbers(live, put):
    queue = await put("mail", {"n": 1})
    async with messages(live, Topic()) as following:
        await following()
    async with asyncio.timeout(10):
        await live._task
    await queue.enqueue({"n": 2})
    async with messages(live, Topic()) as following:
        assert (await following())["queues"][0]["waiting"] == 2


async def test_nobody_listening_is_nobody_looking(live, put):
    await put("mail", {"n": 1})
    async with messages(live, Topic()) as following:
        await following()
    async with asyncio.timeout(10):
        await live._task
    assert live._task is None


async def test_too_many_listeners_are_refused(live):
    live._most_listeners = 1
    live.check_room()
    async with aclosing(live.events(Topic(), shown=str)) as events:
        await anext(events)
        with pytest.raises(Refusal):
            live.check_room()
        # Nor does one listen that was let in while there was room, and begins only now.
        assert await anext(live.events(Topic(), shown=str), None) is None
    live.check_room()


async def test_who_comes_as_the_poller_ends_is_told(live, put):
    await put("mail", {"n": 1})
    ended = asyncio.create_task(asyncio.sleep(0))
    await asyncio.wait({ended})
    live._task = ended  # its callback, which forgets it, is still to run
    async with messages(live, Topic()) as following:
        assert (await following())["queues"]
        newer = live._task
        live._ended(ended)
        assert live._task is newer is not ended


async def test_streams_end_at_once_when_the_server_stops(live, put):
    await put("mail", {"n": 1})
    events = live.events(Topic(), shown=str)
    assert await anext(events)
    assert await anext(events)
    ending = asyncio.create_task(anext(events, None))
    await asyncio.sleep(0)
    live.end_streams()
    async with asyncio.timeout(5):
        assert await ending is None


async def test_who_may_not_look_hears_nothing(make_page):
    async with client_of(make_page(token="t0ken")) as client:
        assert (await client.get("/events")).status_code == 303
        assert (await client.head("/events")).status_code == 303
    async with client_of(make_page()) as client:
        foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
        assert (await client.get("/events", headers=foreign)).status_code == 403
        assert (await client.head("/events")).headers["content-type"].startswith("text/event-stream")
