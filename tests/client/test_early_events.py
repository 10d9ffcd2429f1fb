"""Events that overtake the reply to their job's save reach the job all the same."""

from __future__ import annotations

import asyncio

import pytest

from beeq.protocol.events import encode_event

pytestmark = pytest.mark.fast


async def test_progress_and_retries_before_the_saves_reply_are_heard(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    seen = []
    job = queue.create_job({}).retries(2)
    job.on("progress", lambda value: seen.append(("progress", value)))
    job.on("retrying", lambda error: seen.append(("retrying", str(error))))
    saving = asyncio.ensure_future(job.save())
    events = (("progress", 50), ("retrying", "once"), ("progress", 70))
    for name, data in events:
        # After the save has gone out, before it is answered.
        asyncio.get_running_loop().call_soon(queue.event_hub.receive, encode_event("1", name, data))
    assert (await saving).id == "1"
    await queue.check_health()
    assert seen == list(events)
    assert job.progress == 70
    assert job.options["retries"] == 1
    assert job.status == "retrying"


async def test_events_of_an_earlier_job_of_the_same_id_do_not(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    queue.event_hub.receive(encode_event("x", "progress", 99))
    queue.event_hub.receive(encode_event("x", "succeeded", "old"))
    seen = []
    job = queue.create_job({}).set_id("x")
    job.on("progress", seen.append).on("succeeded", seen.append)
    await job.save()
    await queue.check_health()
    assert seen == []
    assert job.progress == 0


@pytest.mark.parametrize("listens", ["before", "after"])
async def test_events_before_the_reply_of_an_own_id_are_heard_once(make_queue, listens):
    """By listeners that were there before the save, and by those that its caller adds."""
    queue = make_queue(is_worker=False)
    await queue.ready()
    seen = []
    job = queue.create_job({}).set_id("own")

    def listen():
        for name in ("progress", "retrying", "succeeded"):
            job.on(name, lambda value, name=name: seen.append((name, str(value))))

    async def save():
        if listens == "before":
            listen()
        await job.save()
        if listens == "after":
            listen()

    saving = asyncio.ensure_future(save())
    events = (("progress", "50"), ("retrying", "once"), ("succeeded", "done"))
    for name, data in events:
        asyncio.get_running_loop().call_soon(queue.event_hub.receive, encode_event("own", name, data))
    await saving
    await queue.check_health()
    assert seen == list(events)
    assert queue.event_hub.jobs == queue.event_hub._kept == queue.event_hub._expected == {}


async def test_a_refused_id_hears_nothing_of_the_job_that_has_it(make_queue):
    """Nor does anything of it stay."""
    queue = make_queue(is_worker=False)
    await queue.enqueue("first", id="own")
    seen = []
    job = queue.create_job("second").set_id("own").on("progress", seen.append)
    saving = asyncio.ensure_future(job.save())
    asyncio.get_running_loop().call_soon(queue.event_hub.receive, encode_event("own", "progress", 50))
    await saving
    assert job.id is None
    await queue.check_health()
    assert seen == []
    assert queue.event_hub._kept == queue.event_hub._expected == {}


async def test_two_saves_of_one_id_tell_the_one_that_was_added(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    seen = []
    jobs = [queue.create_job(str(n)).set_id("own") for n in range(2)]
    for job in jobs:
        job.on("succeeded", lambda value, job=job: seen.append((job.data, value)))
    saves = [asyncio.ensure_future(job.save()) for job in jobs]
    asyncio.get_running_loop().call_soon(queue.event_hub.receive, encode_event("own", "succeeded", 7))
    await asyncio.gather(*saves)
    await queue.check_health()
    assert seen == [("0", 7)]
    assert queue.event_hub._kept == queue.event_hub._expected == {}


async def test_a_job_shows_early_progress_as_soon_as_it_is_saved(make_queue):
    queue = make_queue(is_worker=False)
    await queue.ready()
    job = queue.create_job({}).set_id("own")
    saving = asyncio.ensure_future(job.save())
    for name, data in (("progress", 50), ("progress", 70), ("succeeded", 1)):
        asyncio.get_running_loop().call_soon(queue.event_hub.receive, encode_event("own", name, data))
    await saving
    assert (job.progress, job.status) == (70, "succeeded")  # no turn of the loop later
