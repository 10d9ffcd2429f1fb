"""Queues of one name in several databases of a server: their channels are one, their jobs are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from beeq import JobFailed, Queue
from beeq.redis import scripts
from beeq.redis.keyspace import FRESH_S
from beeq.service import QueueService

Open = Callable[..., Queue]

EVENTS = ("job succeeded", "job failed", "job retrying", "job progress")


@pytest.fixture
def database(own_valkey: Any, make_queue: Callable[..., Queue]) -> Open:
    """Return the queue ``mail`` in a database by its number."""

    def database(number: int, **settings: Any) -> Queue:
        return make_queue("mail", redis=f"{own_valkey.url}/{number}", **settings)

    return database


def heard_by(queue: Queue) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []
    for event in EVENTS:
        queue.on(event, lambda *reported, event=event: heard.append((event, *reported)))
    return heard


def answer(queue: Queue, value: Any, **options: Any) -> None:
    async def handler(job: Any) -> Any:
        await job.report_progress(value)
        return value

    queue.process(handler, **options)


@pytest.mark.parametrize("databases", [1, 2])
async def test_each_large_event_is_heard_while_large_jobs_are_saved(
    database: Open, eventually: Callable[..., Any], databases: int
) -> None:
    """Whose they are is asked before the saves that wait; else more of them would wait than is kept."""
    here = database(0)
    for number in range(1, databases):
        await database(number).enqueue({})
    reported: list[str] = []
    here.on("job succeeded", lambda job_id, _value: reported.append(job_id))
    worker = database(0)

    @worker.process
    async def handler(job: Any) -> Any:
        return job.data

    await here.ready()
    jobs = [here.create_job("x" * 1_000_000) for _ in range(30)]
    assert await here.save_all(jobs) == {}
    await eventually(lambda: len(reported) == len(jobs))
    assert sorted(reported, key=int) == [job.id for job in jobs]


async def test_the_first_job_here_does_not_end_with_the_one_there(
    database: Open, eventually: Callable[..., Any]
) -> None:
    here, there = database(0), database(1)
    reported = heard_by(here)
    mine = await here.enqueue({})
    heard: list[Any] = []
    for event in ("succeeded", "failed", "retrying", "progress"):
        mine.on(event, heard.append)
    answer(there, "theirs")
    other = await there.enqueue({})
    assert other.id == mine.id
    assert await other.result(timeout=5000) == "theirs"
    with pytest.raises(TimeoutError):
        await mine.result(timeout=300)
    assert (reported, heard, mine.status, mine.progress) == ([], [], "created", 0)
    answer(here, "mine")
    assert await mine.result(timeout=5000) == "mine"
    await eventually(lambda: len(reported) > 1)  # the result may have been looked up before
    assert (heard, mine.status) == (["mine", "mine"], "succeeded")
    assert reported == [("job progress", "1", "mine"), ("job succeeded", "1", "mine")]


async def test_a_failure_and_a_retry_of_another_database_do_not_count(database: Open) -> None:
    here, there = database(0), database(1)
    reported = heard_by(here)
    mine = await here.enqueue({}, retries=3)

    @there.process
    async def handler(_job: Any) -> None:
        raise ValueError("theirs")

    with pytest.raises(JobFailed, match="theirs"):
        await (await there.enqueue({}, retries=1)).result(timeout=5000)
    with pytest.raises(TimeoutError):
        await mine.result(timeout=300)
    assert (reported, mine.status, mine.options["retries"]) == ([], "created", 3)


async def test_jobs_one_after_the_other_end_each_with_its_own(database: Open) -> None:
    """Each id is saved in one database while its end in another is being heard."""

    async def run(number: int) -> list[Any]:
        queue = database(number)
        answer(queue, number)
        return [await (await queue.enqueue({})).result(timeout=9000) for _ in range(150)]

    assert await asyncio.gather(*map(run, range(3))) == [[number] * 150 for number in range(3)]


@pytest.mark.parametrize("settings", [{}, {"remove_on_success": True}])
@pytest.mark.parametrize("is_telling", [True, False])
async def test_two_databases_with_workers_hear_each_of_its_own(
    database: Open, eventually: Any, settings: dict[str, Any], is_telling: bool
) -> None:
    queues = [database(number, **settings) for number in range(2)]
    reported = [heard_by(queue) for queue in queues]
    for number, queue in enumerate(queues):
        answer_with(queue, number if is_telling else None)

    async def run(queue: Queue) -> list[Any]:
        jobs = [queue.create_job({"n": n}) for n in range(100)]
        await queue.save_all(jobs)
        return await asyncio.gather(*(job.result(timeout=9000) for job in jobs))

    results = await asyncio.gather(*map(run, queues))
    wanted = [[[number, n] if is_telling else None for n in range(100)] for number in range(2)]
    assert results == wanted
    await eventually(lambda: all(len(heard) >= 100 for heard in reported))
    for queue, heard, values in zip(queues, reported, wanted, strict=True):
        await queue.check_health()
        assert sorted(heard, key=lambda event: int(event[1])) == [
            ("job succeeded", str(n + 1), value) for n, value in enumerate(values)
        ]


def answer_with(queue: Queue, number: int | None) -> None:
    async def handler(job: Any) -> Any:
        await asyncio.sleep(0)
        return None if number is None else [number, job.data["n"]]

    queue.process(handler, concurrency=5)


async def test_an_empty_database_hears_nothing_of_another(database: Open, redis: Any) -> None:
    here, there = database(0, is_worker=False, activate_delayed_jobs=False), database(1)
    reported = heard_by(here)
    await here.ready()
    answer(there, 1)
    for _ in range(3):
        await (await there.enqueue({})).result(timeout=5000)
    await here.check_health()
    await asyncio.sleep(0.2)
    assert reported == []


async def test_a_database_that_fills_later_is_noticed(database: Open, eventually: Any) -> None:
    here = database(0, is_worker=False)
    worker = database(0)
    reported = heard_by(here)
    answer(worker, "mine")
    assert await (await here.enqueue({})).result(timeout=5000) == "mine"
    await worker.close()
    mine = await here.enqueue({})
    there = database(1)
    await asyncio.sleep(1.5 * FRESH_S)
    answer(there, "theirs")
    for _ in range(2):
        assert await (await there.enqueue({})).result(timeout=5000) == "theirs"
    with pytest.raises(TimeoutError):
        await mine.result(timeout=300)
    assert reported == [("job progress", "1", "mine"), ("job succeeded", "1", "mine")]


@pytest.mark.more_rights("a user of its own")
async def test_where_info_is_forbidden_every_outcome_is_checked(
    own_valkey: Any, make_queue: Callable[..., Queue], eventually: Callable[..., Any]
) -> None:
    with own_valkey.sync_client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = own_valkey.url.replace("redis://", "redis://app:secret@")
    here, there = (make_queue("mail", redis=f"{url}/{number}") for number in range(2))
    reported = heard_by(here)
    answer(there, "theirs")
    mine = await here.enqueue({})
    assert await (await there.enqueue({})).result(timeout=5000) == "theirs"
    with pytest.raises(TimeoutError):
        await mine.result(timeout=200)
    answer(here, "mine")
    assert await mine.result(timeout=5000) == "mine"
    await eventually(lambda: len(reported) > 1)  # the result may have been looked up before
    assert reported == [("job progress", "1", "mine"), ("job succeeded", "1", "mine")]
    with own_valkey.sync_client() as client:
        refused = [entry for entry in client.acl_log() if entry["object"] == "info"]
    assert sum(entry["count"] for entry in refused) <= 2, "each queue asks once a minute"


async def test_one_database_is_looked_at_seldom_and_nothing_is_checked(
    database: Open, own_valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[Any] = []
    monkeypatch.setattr(scripts, "check_events", lambda *call, **_arguments: checks.append(call))
    here = database(0)
    heard_by(here)
    answer(here, 1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(200):
        await (await here.enqueue({})).result(timeout=5000)
    looks = 2 + (loop.time() - began) / FRESH_S * 2
    with own_valkey.sync_client() as client:
        stats = client.info("commandstats")
    assert stats["cmdstat_info"]["calls"] <= looks
    assert checks == []


async def test_a_job_that_is_run_again_is_told_again(database: Open, eventually: Any) -> None:
    here, there = database(0), database(1)
    await there.enqueue({})
    reported = heard_by(here)

    @here.process
    async def handler(job: Any) -> str:
        if len(job.options["stacktraces"]) < 2:
            raise ValueError("no")
        return "good"

    job = await here.enqueue({})
    for count in (1, 2):
        with pytest.raises(JobFailed):
            await job.result(timeout=5000)
        await eventually(lambda count=count: len(reported) == count)
        assert await job.retry()
    await eventually(lambda: len(reported) == 3)
    assert [event[0] for event in reported] == ["job failed", "job failed", "job succeeded"]
    await here.remove_job(job.id)
    for n in range(4, 6):
        assert await (await here.enqueue({}, id="own", retries=5)).result(timeout=5000) == "good"
        await here.remove_job("own")
        await eventually(lambda n=n: [event[0] for event in reported].count("job succeeded") == n - 2)


async def test_a_cancelled_job_is_told_where_there_are_databases(
    database: Open, eventually: Callable[..., Any]
) -> None:
    here, there = database(0, is_worker=False), database(1)
    await there.enqueue({})
    reported = heard_by(here)
    job = await here.enqueue({})
    assert await here.cancel_job(job.id)
    with pytest.raises(JobFailed, match="cancelled"):
        await job.result(timeout=1000)
    await eventually(lambda: reported)  # the result may have been looked up before
    assert [event[:2] for event in reported] == [("job failed", job.id)]


async def test_the_service_waits_for_its_own_databases_job(own_valkey: Any) -> None:
    webhook = {"id": "same", "webhookUrl": "https://example.com/", "payload": {}}
    there = Queue("webhook-processing", redis=f"{own_valkey.url}/1")
    async with QueueService(redis=f"{own_valkey.url}/0") as service, there:
        mine = await service.add_webhook_job(webhook)
        answer(there, "theirs")
        other = await there.enqueue(webhook, id="same")
        assert await other.result(timeout=5000) == "theirs"
        with pytest.raises(TimeoutError):
            await mine.result(timeout=200)


async def test_swapped_databases_are_each_others(database: Open, own_valkey: Any) -> None:
    """What counts is what the keys of this database say now."""
    here, there = database(0, is_worker=False), database(1)
    mine = await here.enqueue({"of": 0})
    other = await there.enqueue({"of": 1})
    await there.enqueue({"of": 1}, id="more")
    with own_valkey.sync_client() as client:
        client.swapdb(0, 1)
    reported = heard_by(here)

    @there.process
    async def handler(job: Any) -> Any:
        return job.data["of"]

    assert await other.result(timeout=5000) == 0
    with pytest.raises(TimeoutError):
        await mine.result(timeout=300)
    assert reported == []
