"""What is heard on the events channel reaches whom it concerns, early or late, and is let go of."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from beeq import Job, JobFailed, QueueClosed
from beeq.client.events.event_hub import EventHub
from beeq.protocol.events import encode_event
from tests.support.samples import make_job

pytestmark = pytest.mark.fast


class Bench:
    """A hub, its queue's events, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.queue_heard: list[tuple[Any, ...]] = []
        self.event_hub = EventHub(emit=self._emit, clock_ms=lambda: self.now_ms)

    def _emit(self, *call: Any) -> bool:
        self.queue_heard.append(call)
        return True

    def receive(self, job_id: str, name: str, *data: Any) -> None:
        self.event_hub.receive(encode_event(job_id, name, *data))

    def job(self, job_id: str | None = "1", **options: Any) -> Job:
        return make_job(options, job_id=job_id, keep=self.event_hub.hold_or_let_go)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def listen(job: Job) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []

    def listener(name: str) -> Any:
        return lambda *arguments: heard.append((name, *arguments))

    for name in ("succeeded", "retrying", "failed", "progress"):
        job.on(name, listener(name))
    return heard


def reported(calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return calls with each error as its type's name and text."""
    return [
        tuple((type(part).__name__, str(part)) if isinstance(part, Exception) else part for part in call)
        for call in calls
    ]


async def turn() -> None:
    """Let the loop make one turn: what was left to it has run then."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await asyncio.wait_for(done.wait(), 1)


@pytest.mark.parametrize(
    ("name", "data", "payload", "status"),
    [
        ("succeeded", [{"x": 1}], {"x": 1}, "succeeded"),
        ("succeeded", [], None, "succeeded"),
        ("succeeded", [None], None, "succeeded"),
        ("failed", ["no"], ("JobFailed", "no"), "failed"),
        ("failed", [], ("JobFailed", ""), "failed"),
        ("failed", [{"odd": 1}], ("JobFailed", "{'odd': 1}"), "failed"),
        ("retrying", ["no"], ("JobFailed", "no"), "retrying"),
        ("progress", [50], 50, "created"),
    ],
)
def test_queue_and_job_hear_of_the_event(bench, name, data, payload, status):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    bench.receive("1", name, *data)
    assert reported(bench.queue_heard) == [(f"job {name}", "1", payload)]
    assert reported(heard) == [(name, payload)]
    assert job.status == status


def test_progress_is_kept_on_the_job_and_ends_nothing(bench):
    job = bench.job()
    bench.event_hub.register(job)
    bench.receive("1", "progress", {"p": 1})
    bench.receive("1", "progress", None)
    assert job.progress is None
    assert bench.event_hub.jobs == {"1": job}
    assert bench.event_hub.heard("1") is None


@pytest.mark.parametrize(("before", "after"), [(3, 2), (1, 0), (0, 0)])
def test_a_retry_counts_down_and_never_to_nan(bench, before, after):
    job = bench.job(retries=before)
    bench.event_hub.register(job)
    bench.receive("1", "retrying", "no")
    assert job.options["retries"] == after
    assert bench.event_hub.jobs == {"1": job}


def test_a_retry_of_a_job_without_retries_invents_none(bench):
    """bee-queue's copy says NaN."""
    job = bench.job()
    bench.event_hub.register(job)
    bench.receive("1", "retrying", "no")
    assert "retries" not in job.options


@pytest.mark.parametrize(
    "message", [b"null", b"NaN", b"{", b"[]", b'{"id":null,"event":"x"}', b"\xff"], ids=ascii
)
def test_what_is_no_event_reaches_nobody(bench, message):
    bench.event_hub.receive(message)
    assert bench.queue_heard == []


def test_an_unheard_of_event_is_passed_on_and_changes_nothing(bench):
    job = bench.job()
    bench.event_hub.register(job)
    bench.receive("1", "frobnicated", 1)
    assert bench.queue_heard == [("job frobnicated", "1", 1)]
    assert (job.status, job.progress) == ("created", 0)


def test_a_numeric_id_means_the_same_job(bench):
    job = bench.job()
    bench.event_hub.register(job)
    bench.event_hub.receive(b'{"id":1,"event":"succeeded"}')
    assert job.status == "succeeded"


def test_every_object_of_one_id_hears_and_each_once(bench):
    jobs = [bench.job() for _ in range(3)]
    heard = [listen(job) for job in jobs]
    for job in (*jobs, *jobs):
        bench.event_hub.register(job)
    bench.receive("1", "progress", 1)
    assert heard == [[("progress", 1)]] * 3


@pytest.mark.parametrize("name", ["succeeded", "failed"])
def test_after_its_end_a_job_hears_nothing_more(bench, name):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    bench.receive("1", name)
    bench.receive("1", "progress", 1)
    assert len(heard) == 1
    assert bench.event_hub.jobs == {}


def test_a_job_that_nobody_holds_or_listens_to_is_let_go(bench):
    """bee-queue's map of jobs grows."""
    job = bench.job()
    bench.event_hub.register(job)
    trace = weakref.ref(job)
    del job
    gc.collect()
    assert trace() is None
    assert bench.event_hub.jobs == {}


def test_a_job_with_listeners_is_held_until_its_end(bench):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    trace = weakref.ref(job)
    del job
    gc.collect()
    bench.receive("1", "succeeded", 5)
    assert heard == [("succeeded", 5)]
    gc.collect()
    assert trace() is None


def test_listening_after_the_job_is_known_holds_it_as_well(bench):
    job = bench.job()
    bench.event_hub.register(job)
    heard = listen(job)
    del job
    gc.collect()
    bench.receive("1", "succeeded", 5)
    assert heard == [("succeeded", 5)]


def test_an_unsaved_job_hears_nothing_and_its_twin_goes_on(bench):
    first, twin = bench.job(), bench.job()
    heard, twin_heard = listen(first), listen(twin)
    bench.event_hub.register(first)
    bench.event_hub.register(twin)
    bench.event_hub.unregister(first)
    bench.receive("1", "succeeded", 5)
    assert heard == []
    assert twin_heard == [("succeeded", 5)]


def test_an_unsaved_twin_hears_nothing_and_the_first_goes_on(bench):
    first, twin = bench.job(), bench.job()
    heard, twin_heard = listen(first), listen(twin)
    bench.event_hub.register(first)
    bench.event_hub.register(twin)
    bench.event_hub.unregister(twin)
    bench.receive("1", "succeeded", 5)
    assert heard == [("succeeded", 5)]
    assert twin_heard == []


def test_a_job_without_id_was_never_known(bench):
    bench.event_hub.unregister(bench.job(None))
    with pytest.raises(ValueError, match="the job has no id"):
        bench.event_hub.register(bench.job(None))


async def test_an_end_before_the_saves_reply_is_delivered_next_turn(bench):
    bench.receive("1", "succeeded", 5)
    job = bench.job()
    bench.event_hub.register(job)
    bench.event_hub.replay(job)
    heard = listen(job)  # the caller that has just got the job may listen first
    assert heard == []
    await turn()
    assert heard == [("succeeded", 5)]
    assert job.status == "succeeded"
    assert bench.event_hub.jobs == {}


async def test_what_overtook_the_reply_is_told_in_its_order(bench):
    bench.receive("1", "progress", 50)
    bench.receive("1", "retrying", "no")
    bench.receive("1", "failed", "no more")
    job = bench.job(retries=1)
    bench.event_hub.register(job)
    bench.event_hub.replay(job)
    heard = listen(job)
    await turn()
    assert reported(heard) == [
        ("progress", 50),
        ("retrying", ("JobFailed", "no")),
        ("failed", ("JobFailed", "no more")),
    ]
    assert (job.progress, job.options["retries"], job.status) == (50, 0, "failed")
    assert bench.event_hub.jobs == {}


def test_progress_is_no_end(bench):
    bench.receive("1", "progress", 50)
    assert bench.event_hub.heard("1") is None


async def test_nothing_is_told_late_when_nothing_was_heard(bench):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    bench.event_hub.replay(job)
    await turn()
    assert heard == []
    assert bench.event_hub.jobs == {"1": job}


async def test_only_what_was_heard_since_a_moment_is_told_late(bench):
    bench.receive("1", "failed", "of an earlier run")
    moment = bench.event_hub.moment
    job = bench.job()
    heard = listen(job)
    bench.event_hub.replay(job, since=moment)
    await turn()
    assert heard == []
    bench.receive("1", "succeeded", 5)
    bench.event_hub.replay(job, since=moment)
    await turn()
    assert heard == [("succeeded", 5)]


@pytest.mark.parametrize("how", ["forget", "forget until", "forget all"])
def test_an_end_of_an_earlier_job_of_the_id_can_be_forgotten(bench, how):
    bench.receive("1", "succeeded", 5)
    if how == "forget":
        bench.event_hub.forget("1")
    elif how == "forget until":
        bench.event_hub.forget("1", until=bench.event_hub.moment)
    else:
        bench.event_hub.forget_all()
    assert bench.event_hub.heard("1") is None


def test_forgetting_up_to_a_moment_keeps_what_was_heard_after_it(bench):
    moment = bench.event_hub.moment
    bench.receive("1", "succeeded", 5)
    bench.event_hub.forget("1", until=moment)
    assert bench.event_hub.heard("1") is not None


def test_an_end_is_remembered_for_a_while_only(bench):
    bench.receive("1", "succeeded", 5)
    bench.now_ms = 3_600_000
    bench.receive("2", "succeeded", 5)
    assert bench.event_hub.heard("1") is None
    assert bench.event_hub.heard("2") is not None


async def test_an_end_that_is_too_old_is_dropped_with_the_next_wish(bench):
    for look in (bench.event_hub.heard, lambda job_id: bench.event_hub.replay(bench.job(job_id))):
        bench.receive("1", "succeeded", 5)
        bench.now_ms += 60_000
        look("2")
        assert len(bench.event_hub._backlog) == 1
        bench.now_ms += 1
        look("2")
        assert len(bench.event_hub._backlog) == 0


def test_of_large_ends_only_the_latest_are_held(bench):
    """A process that awaits many results of a megabyte holds a few of them, not all."""
    for n in range(100):
        bench.receive(str(n), "succeeded", "x" * 1_000_000)
    held = [n for n in range(100) if bench.event_hub.heard(str(n))]
    assert held == list(range(85, 100))


async def test_each_waiter_gets_the_end_and_nothing_before(bench):
    waiters = [bench.event_hub.waiter("1") for _ in range(2)]
    bench.receive("1", "progress", 1)
    bench.receive("1", "retrying", "no")
    bench.receive("2", "succeeded", 2)
    assert not any(waiter.done() for waiter in waiters)
    bench.receive("1", "succeeded", 5)
    assert [waiter.result().value for waiter in waiters] == [5, 5]


async def test_a_waiter_that_gave_up_harms_nobody(bench):
    gone, cancelled, stays = (bench.event_hub.waiter("1") for _ in range(3))
    bench.event_hub.drop_waiter("1", gone)
    bench.event_hub.drop_waiter("1", gone)
    bench.event_hub.drop_waiter("never waited for", gone)
    cancelled.cancel()
    bench.receive("1", "failed", "no")
    assert stays.result().value == "no"
    assert not gone.done()


async def test_the_last_waiter_leaves_nothing_behind(bench):
    waiter = bench.event_hub.waiter("1")
    bench.event_hub.drop_waiter("1", waiter)
    assert bench.event_hub._waiters == {}
    bench.event_hub.waiter("1")
    bench.receive("1", "succeeded")
    assert bench.event_hub._waiters == {}


def test_a_failure_says_which_job_failed(bench):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    bench.receive("1", "failed", "no")
    error = heard[0][1]
    assert isinstance(error, JobFailed)
    assert (error.job_id, str(error)) == ("1", "no")


def test_removing_a_job_lets_go_of_its_objects(bench):
    job = bench.job()
    heard = listen(job)
    bench.event_hub.register(job)
    bench.event_hub.release("1")
    bench.receive("1", "succeeded")
    assert heard == []
    trace = weakref.ref(job)
    del job
    gc.collect()
    assert trace() is None


def test_many_jobs_that_come_and_go_leave_no_trace(bench):
    for n in range(1000):
        for _ in range(2):
            job = bench.job(str(n))
            bench.event_hub.register(job)
            listen(job)
        bench.receive(str(n), "succeeded")
    del job
    gc.collect()
    assert (bench.event_hub.jobs, bench.event_hub._twins, bench.event_hub._kept) == ({}, {}, {})


def test_jobs_dropped_without_an_end_leave_no_trace(bench):
    for n in range(100):
        first, twin = bench.job(str(n)), bench.job(str(n))
        bench.event_hub.register(first)
        bench.event_hub.register(twin)
    del first, twin
    gc.collect()
    assert bench.event_hub.jobs == {}
    assert not any(bench.event_hub._kept.values())
    assert not any(len(twins) for twins in bench.event_hub._twins.values())


def test_ids_of_objects_that_are_gone_do_not_pile_up(bench):
    held = [bench.job(str(n)) for n in range(100)]
    for job in held:
        bench.event_hub.register(job)
    for n in range(100, 20_000):
        bench.event_hub.register(bench.job(str(n)))
    assert len(bench.event_hub._jobs) <= 1001
    assert bench.event_hub.jobs == {job.id: job for job in held}


def test_another_object_of_the_id_hears_after_the_first_is_gone(bench):
    first, second = bench.job(), bench.job()
    bench.event_hub.register(first)
    bench.event_hub.register(second)
    heard = listen(second)
    del first
    gc.collect()
    bench.receive("1", "progress", 5)
    bench.receive("1", "succeeded", 6)
    assert heard == [("progress", 5), ("succeeded", 6)]


# Nothing is left of those who no longer listen.


def test_a_job_is_held_only_while_somebody_listens(bench):
    job = bench.job()
    bench.event_hub.register(job)
    heard: list[Any] = []
    job.on("succeeded", heard.append)
    assert bench.event_hub._kept == {"1": {job}}
    job.off("succeeded", heard.append)
    assert bench.event_hub._kept == {}
    job.on("succeeded", heard.append)
    bench.receive("1", "succeeded", 5)
    assert heard == [5]
    assert bench.event_hub._kept == {}


def test_a_job_whose_listener_wanted_one_event_is_let_go(bench):
    job = bench.job()
    bench.event_hub.register(job)
    heard: list[Any] = []
    job.once("progress", heard.append)
    bench.receive("1", "progress", 5)
    assert heard == [5]
    assert bench.event_hub._kept == {}


def test_a_job_that_is_not_saved_is_not_held(bench):
    """Nor one that has ended, and hears nothing more."""
    job = bench.job()
    listen(job)
    assert bench.event_hub._kept == {}
    bench.event_hub.register(job)
    bench.receive("1", "succeeded", 5)
    listen(job)
    assert bench.event_hub._kept == {}


def test_a_job_that_was_refused_leaves_no_trace(bench):
    jobs = [bench.job() for _ in range(2)]
    for job in jobs:
        listen(job)
        bench.event_hub.register(job)
    for job in jobs:
        bench.event_hub.unregister(job)
    assert bench.event_hub._kept == {}
    assert bench.event_hub.jobs == {}


async def test_a_closed_hub_ends_its_waiters_and_takes_no_more(bench):
    job = bench.job()
    listen(job)
    bench.event_hub.register(job)
    waiter = bench.event_hub.waiter("1")
    bench.event_hub.close()
    for future in (waiter, bench.event_hub.waiter("2")):
        with pytest.raises(QueueClosed):
            await future
    assert bench.event_hub.jobs == bench.event_hub._kept == bench.event_hub._waiters == {}
