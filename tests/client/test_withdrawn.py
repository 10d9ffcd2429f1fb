"""A save that is cancelled before it is sent is withdrawn; one that was sent is said to be unknown."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from beeq import sync
from beeq.protocol.events import encode_event
from tests.support.proxy import proxy_to


@pytest.fixture
async def held(make_queue, valkey):
    """``(queue, proxy)``: what the queue sends from ``proxy.hold`` on stays there until it is released."""
    async with proxy_to(valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False)
        await queue.ready()
        await queue.enqueue("first")
        yield queue, proxy
        proxy.released.set()
        await queue.close()


async def held_back(queue, proxy) -> asyncio.Future[Any]:
    """Send something whose reply does not come yet: what is asked next waits in this process."""
    is_held = asyncio.Event()

    def hold(_request: bytes) -> bool:
        is_held.set()
        return True

    proxy.hold = hold
    asked: asyncio.Future[Any] = asyncio.ensure_future(queue.check_health())
    await is_held.wait()
    proxy.hold = lambda _request: False
    return asked


async def note_of(task: asyncio.Future[Any]) -> str:
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    (note,) = cancelled.value.__notes__
    return note


def hub_is_empty(queue, *ids: str) -> bool:
    hub = queue.event_hub
    return not (hub._expected or hub._kept or any(hub.has(job_id) for job_id in ids))


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("own_id", [None, "own"])
async def test_a_save_cancelled_at_once_is_added_or_unknown(make_queue, redis, turns, own_id):
    """However many turns of the loop it had."""
    queue = make_queue(is_worker=False)
    await queue.ready()
    await queue.enqueue("first")
    job = queue.create_job("late").set_id(own_id)
    heard: list[Any] = []
    job.on("succeeded", heard.append)
    saving = asyncio.ensure_future(job.save())
    for _ in range(turns):
        await asyncio.sleep(0)
    saving.cancel()
    notes: list[str] = []
    try:
        await saving
    except asyncio.CancelledError as cancelled:
        notes = getattr(cancelled, "__notes__", [])
    await queue.enqueue("next")
    added = await redis.hlen(queue.keys.jobs) - 2
    if turns:
        assert added == ("nothing was done" not in notes[0])
    if turns < 2:
        assert added == 0
    if added:
        queue.event_hub.receive(encode_event(job.id, "succeeded", 7))
    else:
        assert job.id == own_id
    assert heard == [7] * added
    assert hub_is_empty(queue, "own")


@pytest.mark.parametrize("own_id", [None, "own"])
async def test_an_enqueue_that_timed_out_unsent_is_not_added(held, redis, own_id):
    queue, proxy = held
    asked = await held_back(queue, proxy)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.enqueue("late", id=own_id), 0.05)
    proxy.released.set()
    await asked
    assert (await queue.enqueue("next")).id == "2"
    assert await redis.hlen(queue.keys.jobs) == 2
    assert hub_is_empty(queue, "own")


async def test_one_of_many_saves_of_a_call_is_withdrawn(held, redis):
    queue, proxy = held
    asked = await held_back(queue, proxy)
    jobs = [queue.create_job(str(n)).set_id(f"j{n}" if n % 2 else None) for n in range(10)]
    saves = [asyncio.ensure_future(job.save()) for job in jobs]
    await asyncio.sleep(0)
    for n in (3, 4, 9):
        assert "nothing was done" in await note_of(saves[n])
    proxy.released.set()
    await asked
    done = await asyncio.gather(*(save for n, save in enumerate(saves) if n not in (3, 4, 9)))
    assert [job.data for job in done] == list("0125678")
    assert [job.id for job in jobs] == ["2", "j1", "3", "j3", None, "j5", "4", "j7", "5", "j9"]
    kept = await redis.hkeys(queue.keys.jobs)
    assert sorted(kept) == ["1", "2", "3", "4", "5", "j1", "j5", "j7"]
    assert hub_is_empty(queue, "j3", "j9")


async def test_a_save_that_waits_for_a_connection_is_withdrawn(own_valkey, make_queue, expect_errors):
    async with proxy_to(own_valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False)
        await queue.enqueue("first")
        is_held = asyncio.Event()

        def hold(_request: bytes) -> bool:
            is_held.set()
            return True

        proxy.hold = hold
        proxy.hang_up()
        await asyncio.sleep(0.05)  # both ends have heard of it
        job = queue.create_job("late").set_id("own")
        saving = asyncio.ensure_future(job.save())
        await is_held.wait()
        note = await note_of(saving)
        assert "nothing was done" in note
        proxy.hold = lambda _request: False
        proxy.released.set()
        await queue.enqueue("next")
        async with own_valkey.client(decode_responses=True) as admin:
            assert sorted(await admin.hkeys(queue.keys.jobs)) == ["1", "2"]
        assert hub_is_empty(queue, "own")
        await queue.close()


async def test_a_withdrawn_job_can_be_saved_again(held, redis):
    queue, proxy = held
    asked = await held_back(queue, proxy)
    heard: list[Any] = []
    job = queue.create_job("again").set_id("own").on("succeeded", heard.append)
    saving = asyncio.ensure_future(job.save())
    await asyncio.sleep(0)
    await note_of(saving)
    again = asyncio.ensure_future(job.save())
    await asyncio.sleep(0)
    proxy.released.set()
    await asked
    assert (await again).id == "own"
    queue.event_hub.receive(encode_event("own", "succeeded", 7))
    assert heard == [7]


async def test_a_save_that_was_sent_is_unknown(held, redis, eventually):
    queue, proxy = held
    is_held = asyncio.Event()

    def hold(_request: bytes) -> bool:
        is_held.set()
        return True

    proxy.hold = hold
    job = queue.create_job("late").set_id("own")
    saving = asyncio.ensure_future(job.save())
    await is_held.wait()
    assert "unknown" in await note_of(saving)
    proxy.hold = lambda _request: False
    proxy.released.set()
    assert (await queue.get_job("own")).data == "late"
    assert queue.event_hub._expected == {}


async def test_a_cancelled_save_all_withdraws_what_was_not_sent(held, redis):
    """Each job of 600 kB needs a call of its own; the first goes out at once."""
    queue, proxy = held
    is_held = asyncio.Event()

    def hold(request: bytes) -> bool:
        is_held.set()
        return True

    proxy.hold = hold
    jobs = [queue.create_job("x" * 600_000).set_id(f"j{n}") for n in range(12)]
    saving = asyncio.ensure_future(queue.save_all(jobs))
    await is_held.wait()
    note = await note_of(saving)
    assert "of 12 jobs were withdrawn" in note
    withdrawn = int(note.split()[0])
    assert 0 < withdrawn < 12
    proxy.hold = lambda _request: False
    proxy.released.set()
    await queue.enqueue("next")
    assert await redis.hlen(queue.keys.jobs) == 2 + 12 - withdrawn
    assert queue.event_hub._expected == {}


async def test_a_save_all_cancelled_beside_another_leaves_that(held, redis):
    queue, proxy = held
    asked = await held_back(queue, proxy)
    mine = [queue.create_job(n) for n in range(5)]
    theirs = [queue.create_job(n) for n in range(10, 15)]
    own = asyncio.ensure_future(queue.save_all(mine))
    other = asyncio.ensure_future(queue.save_all(theirs))
    await asyncio.sleep(0)
    assert "nothing was done" in await note_of(own)
    proxy.released.set()
    await asked
    assert await other == {}
    assert [job.id for job in mine] == [None] * 5
    assert [job.id for job in theirs] == ["2", "3", "4", "5", "6"]


@pytest.mark.parametrize("command", ["remove", "cancel", "retry"])
async def test_other_commands_are_withdrawn_too(held, redis, command):
    queue, proxy = held
    job = await queue.get_job("1")
    if command == "retry":
        await redis.lrem(queue.keys.waiting, 0, "1")
        await redis.sadd(queue.keys.failed, "1")
    asked = await held_back(queue, proxy)
    doing = asyncio.ensure_future(getattr(job, command)())
    await asyncio.sleep(0)
    assert "nothing was done" in await note_of(doing)
    proxy.released.set()
    await asked
    await queue.check_health()
    assert await redis.hexists(queue.keys.jobs, "1")
    assert await redis.llen(queue.keys.waiting) == (command != "retry")
    if command == "retry":
        await redis.srem(queue.keys.failed, "1")
        await redis.hdel(queue.keys.jobs, "1")


async def test_an_interrupted_blocking_enqueue_is_withdrawn(held, valkey, redis, monkeypatch):
    """As Ctrl-C does: the thread's wait raises, and the call ends with it."""
    _queue, proxy = held
    with contextlib.closing(sync.Queue(_queue.name, redis=proxy.url)) as queue:
        await asyncio.to_thread(queue.connect)
        proxy.hold = lambda _request: True
        threading.Thread(target=queue.check_health, daemon=True).start()
        twin = queue._twin
        calls: list[Any] = []
        run_threadsafe = asyncio.run_coroutine_threadsafe

        def interrupted(coroutine: Any, loop: Any) -> Any:
            future = run_threadsafe(coroutine, loop)
            calls.append(future)
            wait = future.result

            def result(*arguments: Any) -> Any:
                with contextlib.suppress(TimeoutError):
                    wait(0.2)
                raise KeyboardInterrupt

            monkeypatch.setattr(future, "result", result)
            return future

        await asyncio.sleep(0.1)
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.enqueue("late", id="own")
        monkeypatch.undo()
        proxy.hold = lambda _request: False
        proxy.released.set()
        await asyncio.to_thread(queue.check_health)
        assert calls[0].cancelled()
        assert not await redis.hexists(twin.keys.jobs, "own")
