"""Pausing a queue, resuming it, and what is known of a pause."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from beeq import NoWorkerLives, Pause, QueuePaused
from beeq.client.session import Session
from beeq.maintenance.pause_watch import PauseKeeper
from beeq.process import now_ms, user_name
from beeq.protocol.pauses import MAX_BY_CHARACTERS, decode_pause
from beeq.sync import Queue as SyncQueue

pytestmark = pytest.mark.fast


@pytest.fixture
def operator(make_queue: Any) -> Any:
    """A queue that only looks and acts, as the commands' are."""
    return make_queue(is_worker=False, activate_delayed_jobs=False)


class Works:
    """A worker of the queue that notes what it runs."""

    def __init__(self, make_queue: Any, *, concurrency: int = 1, **settings: Any) -> None:
        self.queue = make_queue(**settings)
        self.ran: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.began = asyncio.Event()
        self.queue.process(self._handle, concurrency)

    async def _handle(self, job: Any) -> str:
        self.ran.append(job.id)
        self.began.set()
        await self.go_on.wait()
        return "done"

    @property
    def is_paused(self) -> bool:
        return bool(self.queue.worker_health().is_queue_paused)


class TestRecord:
    def test_a_pause_is_read_as_it_was_written(self) -> None:
        raw = b'{"since":5,"until":9,"everyone":true,"by":"ada@host","reason":"deploy"}'
        assert decode_pause(raw) == Pause(5, "ada@host", "deploy", 9, everyone=True)

    @pytest.mark.parametrize(
        "raw", [b"", b"1", b"\xff", b"[]", b'{"since":"x","until":true,"everyone":1,"by":7,"reason":null}']
    )
    def test_one_that_was_set_by_hand_says_nothing_more(self, raw: bytes) -> None:
        assert decode_pause(raw) == Pause(0, "", "", None, everyone=False)

    @pytest.mark.parametrize(
        ("pause", "text"),
        [
            (Pause(0, "", "", None, everyone=False), "by somebody, until somebody resumes it"),
            (
                Pause(5, "ada@host", "deploy", 1_700_000_000_000, everyone=True),
                "by ada@host, for Node workers, too, until 2023-11-14 22:13:20+00:00: deploy",
            ),
            (Pause(5, "a", "", 2**53 - 1, everyone=False), f"by a, until {2**53 - 1} ms"),
        ],
    )
    def test_it_is_a_line_for_a_person(self, pause: Pause, text: str) -> None:
        assert str(pause) == text


async def test_a_queue_that_was_never_paused_is_not(operator: Any) -> None:
    assert await operator.paused() is None
    assert await operator.resume() is None


async def test_a_key_of_another_type_pauses_nobody(operator: Any, redis: Any) -> None:
    await redis.rpush(operator.keys.paused, "x")
    assert await operator.paused() is None


async def test_a_pause_says_who_why_and_how_long(operator: Any) -> None:
    pause = await operator.pause("the mail server moves", for_="10m")
    assert (pause.by, pause.reason) == (user_name()[:MAX_BY_CHARACTERS], "the mail server moves")
    assert (pause.until_ms - pause.since_ms, pause.everyone) == (600_000, False)
    assert await operator.paused() == pause
    again = await operator.pause(by="cron")
    assert (again.by, again.reason, again.until_ms) == ("cron", "", None), "the later one counts"
    assert await operator.resume() == again
    assert await operator.paused() is None


async def test_two_who_pause_and_resume_at_once_do_no_harm(operator: Any) -> None:
    await asyncio.gather(*(operator.pause(by=str(n)) for n in range(10)))
    assert (await operator.paused()).by in map(str, range(10))
    ended = await asyncio.gather(*(operator.resume() for _ in range(10)))
    assert len([pause for pause in ended if pause is not None]) == 1


async def test_a_pause_that_begins_during_a_resume_stays(
    operator: Any, make_queue: Any, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_queue(is_worker=False, activate_delayed_jobs=False)
    await operator.pause("the first")
    ids = [(await operator.enqueue({})).id for _ in range(4)]
    for _ in range(2):
        await redis.lmove(operator.keys.waiting, operator.keys.hidden, "RIGHT", "LEFT")
    later: list[Pause] = []
    call = PauseKeeper._call

    async def slow(keeper: PauseKeeper, ends: str | bytes) -> Any:
        answer = await call(keeper, ends)
        if ends == "1" and not later:
            later.append(await other.pause("the second"))
        return answer

    monkeypatch.setattr("beeq.maintenance.pause_watch._MOVE_AT_ONCE", 1)
    monkeypatch.setattr(PauseKeeper, "_call", slow)
    assert (await operator.resume()).reason == "the first"
    assert later == [await operator.paused()]
    assert await operator.resume() == later[0]
    assert await operator.paused() is None
    assert await redis.lrange(operator.keys.waiting, 0, -1) == ids[::-1]


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"reason": "x" * 501}),
        (TypeError, {"reason": None}),
        (ValueError, {"by": "x" * 201}),
        (ValueError, {"for_": 0}),
        (ValueError, {"for_": "10"}),
        (ValueError, {"for_": "3651d"}),
        (TypeError, {"for_": 1.5}),
        (TypeError, {"everyone": "yes"}),
    ],
)
async def test_a_bad_argument_is_named_and_pauses_nobody(operator: Any, error: type, options: Any) -> None:
    with pytest.raises(error, match=next(iter(options))):
        await operator.pause(**options)
    assert await operator.paused() is None


async def test_for_everyone_a_worker_has_to_be_there(operator: Any) -> None:
    with pytest.raises(NoWorkerLives, match="no beeq worker works on it"):
        await operator.pause(everyone=True)
    assert await operator.paused() is None


def test_the_blocking_queue_pauses_too(valkey: Any, queue_name: str, audit: Any) -> None:
    with SyncQueue(queue_name, redis=valkey.url) as queue:
        audit.append(queue._twin.keys)
        pause = queue.pause("deploy", for_=60_000)
        assert queue.paused() == pause
        assert queue.resume() == pause
        assert queue.paused() is None


class TestWorkers:
    async def test_an_idle_worker_takes_nothing_until_it_goes_on(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        await (await operator.enqueue()).result(timeout=5000)
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        job = await operator.enqueue()
        health = works.queue.worker_health()
        assert (health.is_healthy, health.is_taking) == (True, False)
        await asyncio.sleep(0.3)  # nothing shall happen
        assert works.ran == ["1"]
        await operator.resume()
        assert await job.result(timeout=5000) == "done"
        assert works.queue.worker_health().is_taking

    async def test_what_runs_ends_and_what_waits_stays(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue, concurrency=2)
        works.go_on.clear()
        jobs = [await operator.enqueue() for _ in range(5)]
        await eventually(lambda: len(works.ran) == 2, 5)
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        works.go_on.set()
        for job in jobs[:2]:
            assert await job.result(timeout=5000) == "done"
        counts = await operator.check_health()
        assert (counts.waiting, counts.active, counts.succeeded) == (3, 0, 2)
        await operator.resume()
        assert await jobs[4].result(timeout=5000) == "done"

    async def test_one_that_starts_later_takes_nothing(self, operator: Any, make_queue: Any) -> None:
        await operator.pause()
        jobs = [await operator.enqueue() for _ in range(3)]
        works = Works(make_queue, concurrency=3)
        await works.queue.ready()
        await asyncio.sleep(0.3)  # nothing shall happen
        assert (works.ran, works.is_paused) == ([], True)
        await operator.resume()
        for job in jobs:
            await job.result(timeout=5000)

    async def test_a_pause_ends_by_itself_within_a_second(self, operator: Any, make_queue: Any) -> None:
        works = Works(make_queue)
        await works.queue.ready()
        await operator.pause(for_=400)
        job = await operator.enqueue()
        began_s = time.monotonic()
        await job.result(timeout=5000)
        assert time.monotonic() - began_s < 1.8

    @pytest.mark.real_redis("the look after it takes its time")
    async def test_it_learns_of_a_pause_whose_message_is_lost(
        self, operator: Any, make_queue: Any, redis: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        await (await operator.enqueue()).result(timeout=5000)
        await redis.set(operator.keys.paused, "by hand")
        began_s = time.monotonic()
        await eventually(lambda: works.is_paused, 5)
        assert time.monotonic() - began_s < 1.3
        await redis.delete(operator.keys.paused)
        await (await operator.enqueue()).result(timeout=5000)

    async def test_it_learns_of_one_before_it_could_hear_of_it(
        self, operator: Any, make_queue: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("beeq.maintenance.pause_watch._LOOK_S", (60, 60))
        may_subscribe = asyncio.Event()
        subscribe = Session.subscribe

        async def late(session: Session, channel: str, *rest: Any) -> None:
            if channel == operator.keys.paused:
                await may_subscribe.wait()
            await subscribe(session, channel, *rest)

        monkeypatch.setattr(Session, "subscribe", late)
        works = Works(make_queue)
        await (await operator.enqueue()).result(timeout=5000)
        await operator.pause()
        may_subscribe.set()
        await eventually(lambda: works.is_paused, 5)

    async def test_its_turns_are_counted_during_a_pause(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        first_ms = works.queue.worker_health().last_turn_ms
        await eventually(lambda: works.queue.worker_health().last_turn_ms > first_ms + 500, 5)

    @pytest.mark.usefixtures("expect_errors")
    async def test_none_is_counted_while_redis_is_away(
        self, own_valkey: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue, redis=own_valkey.url)
        await works.queue.pause()
        await eventually(lambda: works.is_paused, 5)
        own_valkey.stop()
        await eventually(lambda: now_ms() - works.queue.worker_health().last_turn_ms > 2000, 10)
        own_valkey.start()
        await eventually(lambda: now_ms() - works.queue.worker_health().last_turn_ms < 1000, 10)

    async def test_it_closes_during_a_pause_at_once(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        began_s = time.monotonic()
        await works.queue.close()
        assert time.monotonic() - began_s < 1

    async def test_the_log_says_that_it_is_paused_and_goes_on(
        self, operator: Any, make_queue: Any, eventually: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        works = Works(make_queue)
        await works.queue.ready()
        await operator.pause("a\nb", by="ada")
        await eventually(lambda: works.is_paused, 5)
        await operator.resume()
        await eventually(lambda: not works.is_paused, 5)
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            f"queue {operator.name}: paused by ada, until somebody resumes it: a\\nb",
            f"queue {operator.name}: the pause is over: jobs are taken again",
        ]


class TestBurst:
    async def test_on_a_paused_queue_it_ends_and_says_so(self, operator: Any, make_queue: Any) -> None:
        await operator.pause("deploy", by="ada")
        await operator.save_all([operator.create_job() for _ in range(2)])
        works = Works(make_queue)
        with pytest.raises(QueuePaused, match=r"is paused by ada, .*: deploy; 2 jobs wait") as caught:
            await asyncio.wait_for(works.queue.run(burst=True, catch_signals=False), 10)
        assert (caught.value.waiting, caught.value.pause.by, works.ran) == (2, "ada", [])

    async def test_with_nothing_to_do_it_ends_well(self, operator: Any, make_queue: Any) -> None:
        await operator.pause()
        await operator.enqueue(delay_until="1h")
        await asyncio.wait_for(Works(make_queue).queue.run(burst=True, catch_signals=False), 10)

    async def test_what_runs_when_it_is_paused_ends_first(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        works.go_on.clear()
        jobs = [await operator.enqueue() for _ in range(2)]
        running = asyncio.create_task(works.queue.run(burst=True, catch_signals=False))
        await works.began.wait()
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        assert not running.done()
        works.go_on.set()
        with pytest.raises(QueuePaused, match="1 job waits"):
            await asyncio.wait_for(running, 10)
        assert await jobs[0].result(timeout=5000) == "done"

    async def test_it_goes_on_if_the_pause_is_over_by_then(
        self, operator: Any, make_queue: Any, eventually: Any
    ) -> None:
        works = Works(make_queue)
        works.go_on.clear()
        jobs = [await operator.enqueue() for _ in range(2)]
        running = asyncio.create_task(works.queue.run(burst=True, catch_signals=False))
        await works.began.wait()
        await operator.pause()
        await eventually(lambda: works.is_paused, 5)
        await operator.resume()
        works.go_on.set()
        await asyncio.wait_for(running, 10)
        assert works.ran == [job.id for job in jobs]


class TestEveryone:
    """What waits is hidden from Node peers; beeq's own calls see and change it as ever."""

    @pytest.fixture
    async def works(self, operator: Any, make_queue: Any, redis: Any, eventually: Any) -> Works:
        works = Works(make_queue)
        await works.queue.ready()
        await eventually(lambda: operator_sees_worker(redis, operator.keys), 5)
        return works

    async def test_jobs_are_hidden_also_those_that_come_later(
        self, operator: Any, works: Works, redis: Any, eventually: Any
    ) -> None:
        await operator.pause(everyone=True)
        await eventually(lambda: works.is_paused, 5)
        jobs = [await operator.enqueue({"n": n}) for n in range(3)]
        ids = [job.id for job in jobs]
        await eventually(lambda: nothing_waits(redis, operator.keys), 5)
        assert await redis.lrange(operator.keys.hidden, 0, -1) == ids[::-1]
        late = await operator.enqueue({"n": 3})
        assert (await operator.check_health()).waiting == 4
        assert [each.job.id async for each in operator.find_jobs(state="waiting")] == [*ids, late.id]
        assert [job.id for job in await operator.get_jobs("waiting", start=0, end=-1)] == [
            late.id,
            *ids[::-1],
        ]
        assert [job.id for job in await operator.get_jobs("waiting", start=1, end=2)] == [ids[2], ids[1]]
        details = await operator.inspect_job(ids[2])
        assert (details.state, details.ahead) == ("waiting", 2)
        assert [await jobs[0].is_in_set(name) for name in ("waiting", "active")] == [True, False]
        assert await operator.cancel_job(ids[0])
        await operator.remove_job(ids[1])
        assert (await operator.cancel_many(state="waiting", where={"data.n": 2})).done == 1
        await operator.resume()
        assert await late.result(timeout=5000) == "done"
        assert works.ran == [late.id]
        assert await redis.exists(operator.keys.hidden) == 0

    @pytest.mark.real_redis("the pause takes its time")
    async def test_all_run_in_their_order_when_it_is_over(
        self, operator: Any, works: Works, redis: Any, eventually: Any
    ) -> None:
        await operator.pause(everyone=True, for_=1200)
        await eventually(lambda: works.is_paused, 5)
        ids = []
        for _ in range(3):
            ids.append((await operator.enqueue()).id)
            await eventually(lambda: nothing_waits(redis, operator.keys), 5)
        last = await operator.enqueue()
        await last.result(timeout=8000)
        assert works.ran == [*ids, last.id]

    async def test_a_pause_of_beeqs_workers_shows_them_again(
        self, operator: Any, works: Works, redis: Any, eventually: Any
    ) -> None:
        await operator.pause(everyone=True)
        await eventually(lambda: works.is_paused, 5)
        job = await operator.enqueue()
        await eventually(lambda: nothing_waits(redis, operator.keys), 5)
        await operator.pause()
        assert await redis.lrange(operator.keys.waiting, 0, -1) == [job.id]
        assert works.ran == []

    async def test_what_nobody_brought_back_a_later_process_does(
        self, operator: Any, make_queue: Any, redis: Any, eventually: Any
    ) -> None:
        """The pause's time was over with no process alive; this one raises delayed jobs, and works on none."""
        job = await operator.enqueue()
        await redis.rename(operator.keys.waiting, operator.keys.hidden)
        await make_queue(is_worker=False).ready()
        await eventually(lambda: is_waiting(redis, operator.keys, job.id), 5)

    async def test_a_later_worker_brings_them_back_first(
        self, operator: Any, make_queue: Any, redis: Any
    ) -> None:
        ids = [(await operator.enqueue()).id for _ in range(3)]
        await redis.rename(operator.keys.waiting, operator.keys.hidden)
        last = await operator.enqueue()
        works = Works(make_queue, activate_delayed_jobs=False)
        await last.result(timeout=5000)
        assert works.ran == [*ids, last.id]

    async def test_destroy_takes_pause_and_hidden_jobs_along(
        self, operator: Any, works: Works, redis: Any, eventually: Any
    ) -> None:
        await operator.pause(everyone=True)
        await operator.enqueue()
        await eventually(lambda: nothing_waits(redis, operator.keys), 5)
        await works.queue.close()
        await operator.destroy()
        assert await redis.exists(*operator.keys.every()) == 0


async def operator_sees_worker(redis: Any, keys: Any) -> bool:
    return bool(await redis.zcard(keys.workers))


async def nothing_waits(redis: Any, keys: Any) -> bool:
    return not await redis.exists(keys.waiting)


async def is_waiting(redis: Any, keys: Any, job_id: str) -> bool:
    return await redis.lpos(keys.waiting, job_id) is not None
