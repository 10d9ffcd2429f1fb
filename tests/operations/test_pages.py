"""Pages of a state's jobs, kinds of errors, duplicates: what the page asks of a queue, in Python."""

from __future__ import annotations

import json

import pytest

from beeq.operations.error_kinds import kind_of_error
from beeq.operations.scans import PagePlace
from beeq.sync import Queue as SyncQueue

pytestmark = pytest.mark.fast


def record(*, trace: str = "", **data) -> str:
    options = {"timestamp": 1, "stacktraces": [trace] if trace else []}
    return json.dumps({"data": data, "options": options, "status": "created", "progress": 0})


@pytest.fixture
async def queue(make_queue, redis):
    """A queue with 130 waiting jobs, 130 delayed ones and 1200 failed ones."""
    queue = make_queue(is_worker=False, activate_delayed_jobs=False)
    waiting, delayed, failed = (
        [f"{state}{n}" for n in range(count)] for state, count in (("w", 130), ("d", 130), ("f", 1200))
    )
    traces = {job_id: f"ValueError: no {n} of 1200\n  at x" for n, job_id in enumerate(failed)}
    every = [*waiting, *delayed, *failed]
    await redis.hset(
        queue.keys.jobs, mapping={each: record(trace=traces.get(each, ""), id=each) for each in every}
    )
    await redis.lpush(queue.keys.waiting, *waiting)
    now_ms = int((await redis.time())[0]) * 1000
    await redis.zadd(queue.keys.delayed, {each: now_ms + 3_600_000 + n for n, each in enumerate(delayed)})
    await redis.sadd(queue.keys.failed, *failed)
    return queue


async def ids_of(queue, state: str, **options) -> list[str]:
    at, ids = "", []
    while at is not None:
        page = await queue.page_of_jobs(state, at=at, **options)
        assert {each.state for each in page.jobs} <= {state}
        ids += [each.job.id for each in page.jobs]
        at = page.next_at
    return ids


@pytest.mark.parametrize("count", [1, 50, 129, 130, 131])
async def test_pages_of_a_list_follow_the_order_of_running(queue, count):
    assert await ids_of(queue, "waiting", count=count) == [f"w{n}" for n in range(130)]
    assert await ids_of(queue, "delayed", count=count) == [f"d{n}" for n in range(130)]


async def test_pages_of_a_set_have_each_job(queue):
    ids = await ids_of(queue, "failed", count=40)
    assert set(ids) == {f"f{n}" for n in range(1200)}
    assert await ids_of(queue, "succeeded") == []


async def test_a_page_of_a_small_set_is_no_longer_than_asked_for(make_queue, redis):
    queue = make_queue(is_worker=False)
    await redis.hset(queue.keys.jobs, mapping={str(n): record() for n in range(100)})
    await redis.sadd(queue.keys.succeeded, *map(str, range(100)))
    page = await queue.page_of_jobs("succeeded", count=30)
    assert len(page.jobs) == 30
    assert sorted(await ids_of(queue, "succeeded", count=30), key=int) == [str(n) for n in range(100)]


async def test_large_jobs_make_shorter_pages_and_none_is_left_out(make_queue, redis):
    queue = make_queue(is_worker=False)
    ids = [str(n) for n in range(15)]
    await redis.hset(queue.keys.jobs, mapping={each: record(blob="x" * 400_000) for each in ids})
    await redis.lpush(queue.keys.waiting, *ids)
    assert len((await queue.page_of_jobs("waiting")).jobs) < 15
    assert await ids_of(queue, "waiting") == ids
    await redis.delete(queue.keys.waiting)
    await redis.sadd(queue.keys.failed, *ids)
    assert sorted(await ids_of(queue, "failed"), key=int) == ids


async def test_records_longer_than_asked_for_are_not_read(make_queue, redis):
    queue = make_queue(is_worker=False)
    await redis.hset(queue.keys.jobs, mapping={"long": record(blob="x" * 5000), "short": record(n=1)})
    await redis.lpush(queue.keys.waiting, "long", "short")
    long, short = (await queue.page_of_jobs("waiting", max_bytes=1000)).jobs
    assert (long.job.id, long.job.data, long.state) == ("long", {}, "waiting")
    assert "bytes was not read" in long.error
    assert (short.job.data, short.error) == ({"n": 1}, "")
    details = await queue.inspect_job("long", max_bytes=1000)
    assert (details.job, details.state, details.is_too_long) == (None, "waiting", True)
    assert details.record_bytes > 5000
    assert "cannot be read" not in str((await queue.explain("long", details=details)).sentences)
    assert not (await queue.inspect_job("long")).is_too_long


async def test_a_result_longer_than_asked_for_is_not_read(make_queue, redis):
    queue = make_queue(is_worker=False)
    await redis.hset(queue.keys.jobs, "1", record(n=1))
    await redis.sadd(queue.keys.succeeded, "1")
    await redis.hset(queue.keys.results, "1", f'1:s"{"x" * 5000}"')
    details = await queue.inspect_job("1", max_bytes=1000)
    assert (details.state, details.ended, details.job.data) == ("succeeded", None, {"n": 1})
    assert details.result_bytes == 5005
    whole = await queue.inspect_job("1")
    assert (whole.ended.value, whole.result_bytes) == ("x" * 5000, 5005)


async def test_a_search_tells_how_far_it_is_and_what_it_left(make_queue, redis):
    queue = make_queue(is_worker=False)
    records = {str(n): record(n=n) for n in range(600)}
    records["7"] = record(blob="x" * 5000)
    await redis.hset(queue.keys.jobs, mapping=records)
    await redis.lpush(queue.keys.waiting, *records)
    seen = []
    found = [
        each.job.id
        async for each in queue.find_jobs(where={"data.n": 500}, max_bytes=1000, on_progress=seen.append)
    ]
    assert found == ["500"]
    assert [each.seen for each in seen] == [250, 500, 600]
    assert (seen[-1].matched, seen[-1].unreadable) == (1, 1)


@pytest.mark.parametrize(
    "at", ["x", "1", "-1.2", "1.2.3", "9" * 40, "0.-5", f"{2**64}.0", "٣.٣", "0." + "9" * 20]
)
async def test_a_place_that_nobody_gave_is_no_error(queue, at):
    page = await queue.page_of_jobs("waiting", at=at, count=5)
    assert len(page.jobs) in (0, 5)
    assert PagePlace.of("x") == PagePlace()


async def test_a_page_needs_a_state_and_a_count(queue):
    with pytest.raises(ValueError, match="state must be one of"):
        await queue.page_of_jobs("lost")
    with pytest.raises(ValueError, match="count"):
        await queue.page_of_jobs("waiting", count=0)


async def test_jobs_are_found_by_the_kind_of_their_error(queue, redis):
    await redis.hset(queue.keys.jobs, "f7", record(trace="TypeError: no 7 of 1200"))
    counts = await queue.retry_many(error_kind="ValueError: no # of #", dry_run=True)
    assert (counts.seen, counts.matched) == (1200, 1199)
    assert [each.job.id async for each in queue.find_jobs(error_kind="TypeError: no # of #")] == ["f7"]


async def test_jobs_are_found_by_text_of_data_or_error(queue):
    assert [each.job.id async for each in queue.find_jobs(text='"W77"')] == ["w77"]
    assert [each.job.id async for each in queue.find_jobs(text="no 77 OF")] == ["f77"]
    with pytest.raises(TypeError, match="text must be a str"):
        queue.find_jobs(text=7)


@pytest.mark.parametrize(
    ("trace", "kind"),
    [
        ("ValueError: no\nTraceback …", "ValueError: no"),
        ("E: job 17 of 3.5 s at 10.0.0.1:6379", "E: job # of # s at #"),
        ("E: 0a1b2c3d-0000-4000-8000-00000000000a is gone", "E: # is gone"),
        ("E: at 0x7f2e1c0 digest deadbeef01", "E: at # digest #"),
        ("E: facade of a decade", "E: facade of a decade"),
        ("", ""),
        ("x" * 5000, "x" * 200),
    ],
)
def test_errors_of_one_kind_differ_in_numbers_and_ids_only(trace, kind):
    assert kind_of_error(trace) == kind


async def test_a_duplicate_is_a_new_job_with_the_same_data(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({"n": 2**70}, id="mine", retries=2, timeout="5s")
    copy = await queue.duplicate_job(job)
    assert copy.id == "1"
    again = await queue.get_job("1")
    assert again.data == {"n": 2**70}
    assert (again.options["retries"], again.options["timeout"]) == (2, 5000)
    assert (await queue.check_health()).waiting == 2


def test_the_blocking_queue_has_pages_and_duplicates(valkey, queue_name):
    with SyncQueue(queue_name, redis=valkey.url, is_worker=False) as queue:
        job = queue.enqueue({"n": 1})
        (found,) = queue.page_of_jobs("waiting").jobs
        assert (found.job.id, found.job.data, found.failed_ms) == (job.id, {"n": 1}, 0)
        copy = queue.duplicate_job(found.job)
        assert copy.data == {"n": 1}
        copy.remove()
