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
