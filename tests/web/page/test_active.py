"""Active jobs on the page: for how long they have run, and that their worker is gone."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from beeq.operations.explanation.active_jobs import ActiveLook, look_at_active
from beeq.protocol.keys import Keys
from beeq.web import Policy, dashboard
from beeq.web.page import waits
from beeq.web.page.sources import active_jobs
from tests.web.page.conftest import client_of
from tests.web.page.forms import jobs_of, links_of, text_of

WORKER = """
import asyncio, sys
from beeq import Queue

async def main():
    name, prefix, url = sys.argv[1:]
    queue = Queue(name, prefix=prefix, redis=url, stall_interval=600_000)

    @queue.process(concurrency=5)
    async def handler(job):
        print("started", flush=True)
        await asyncio.Event().wait()

    await queue.run()

asyncio.run(main())
"""
NO_WORKER = (
    "a beeq worker has taken it, and no living one says that it runs it:"
    " stall checks queue it again, which workers make, and none lives"
)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each screen see the moment."""
    monkeypatch.setattr(active_jobs, "_GOOD_FOR_S", -1.0)
    monkeypatch.setattr(active_jobs, "_REST", 0)
    monkeypatch.setattr("beeq.web.page.store._COUNTS_FOR_S", -1.0)
    monkeypatch.setattr("beeq.web.page.store._REST", 0)


async def now_ms(redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


class Actors:
    """Jobs of one queue that are active, and the workers that have noted them."""

    def __init__(self, redis, keys: Keys) -> None:
        self.redis, self.keys = redis, keys
        self._running: list[str] = []

    async def take(self, *ids: str, claim: str | None = "token.1:1") -> None:
        """Have each job taken by its claim's worker: None is a Node worker."""
        record = json.dumps({"data": {}, "options": {"timestamp": 1, "stacktraces": []}, "status": "created"})
        for each in ids:
            await self.redis.hset(self.keys.jobs, each, record)
            await self.redis.lpush(self.keys.active, each)
            if claim is not None:
                await self.redis.hset(self.keys.claims, each, claim)

    async def worker(self, name: str, *, beat_ms: int, interval_ms: int = 5000, **ran_ms: int) -> None:
        """Have a worker live that beat so long ago, and has noted jobs."""
        now = await now_ms(self.redis)
        await self.redis.zadd(self.keys.workers, {name: now - beat_ms})
        running = Keys(self.keys.prefix, self.keys.queue_name, worker=name).running
        facts = {
            "version": "1.0",
            "places": 5,
            "busy": len(ran_ms),
            "taking": True,
            "stallInterval": interval_ms,
        }
        fields = {f"job:{job_id}": now - each for job_id, each in ran_ms.items()}
        await self.redis.hset(running, mapping={"process": json.dumps(facts), **fields})
        self._running.append(running)

    async def clear(self) -> None:
        keys = self.keys
        await self.redis.delete(
            *self._running, keys.workers, keys.active, keys.jobs, keys.claims, keys.stalling, keys.stall_block
        )


@pytest.fixture
async def actors(put, redis):
    actors = Actors(redis, (await put("imports")).keys)
    yield actors
    await actors.clear()


async def test_a_killed_workers_job_is_flagged(client, put, redis, prefix, valkey, eventually):
    queue = await put("imports", {"n": 1})
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, "imports", prefix, valkey.url), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert worker.stdout is not None
        assert await asyncio.wait_for(worker.stdout.readline(), 30) == b"started\n"

        async def runs():
            shown = text_of(await client.get("/q/imports/active"))
            return "has run for" in shown and "last beat" not in shown

        await eventually(runs, 20)
        assert "Nothing needs a person" in text_of(await client.get("/"))
    finally:
        worker.kill()
        await worker.communicate()
    (name,) = await redis.zrange(queue.keys.workers, 0, -1)
    await redis.zincrby(queue.keys.workers, -14_000, name)
    shown = text_of(await client.get("/q/imports/active"))
    assert "its worker's last beat was 1" in shown
    assert "stall checks queue it again, which workers make, and none lives" in shown
    assert "has run for" not in shown
    overview = await client.get("/")
    assert "1 queue needs somebody" in text_of(overview)
    assert "active job 1: its worker's last beat was 1" in text_of(overview)
    assert links_of(overview)["imports"] == "/q/imports/active"
    await redis.delete(queue.keys.workers)  # as after 30 s
    await redis.delete(Keys(prefix, "imports", worker=name).running)
    for address in ("/", "/q/imports/active"):
        assert NO_WORKER in text_of(await client.get(address))
    assert NO_WORKER in text_of(await client.get("/q/imports/jobs/1"))
    await redis.delete(queue.keys.claims)
    await redis.lmove(queue.keys.active, queue.keys.waiting)


async def test_where_another_worker_lives_nobody_is_needed(client, actors):
    await actors.take("a", "b")
    await actors.worker("host:1:aaaaaaaa", beat_ms=20_000, a=30_000)
    await actors.worker("host:2:bbbbbbbb", beat_ms=100, b=90_000)
    overview = text_of(await client.get("/"))
    assert "Nothing needs a person" in overview
    assert "active job a: its worker's last beat was 20s ago: it is queued again in about 5.0s" in overview
    shown = text_of(await client.get("/q/imports/active"))
    assert shown.count("its worker's last beat") == 1
    assert "has run for 1m 30s on host:2:bbbbbbbb" in shown


async def test_nodes_jobs_are_not_flagged(client, actors, redis):
    await actors.take("a", claim=None)
    await actors.take("b", claim=":2")
    await redis.sadd(actors.keys.stalling, "a", "b")
    assert "Nothing needs a person" in text_of(await client.get("/"))
    shown = text_of(await client.get("/q/imports/active"))
    assert jobs_of(await client.get("/q/imports/active")) == ["a", "b"]
    for text in ("has run for", "its worker", "beeq worker has taken"):
        assert text not in shown


@pytest.mark.parametrize(
    ("marked", "check_ms", "is_lost"),
    [
        (False, 500, False),  # taken since the last check
        (True, 4900, False),  # marked just now: its worker had no time to beat
        (True, 500, True),
        (True, 600_000, False),  # nobody knows when it was marked
    ],
)
async def test_a_job_taken_just_now_is_not_flagged(client, actors, redis, marked, check_ms, is_lost):
    await actors.take("new")
    await actors.worker("host:2:bbbbbbbb", beat_ms=100)
    await redis.set(actors.keys.stall_block, "1", px=check_ms + 400)
    if marked:
        await redis.sadd(actors.keys.stalling, "new")
    await redis.set(actors.keys.stall_block, "1", px=check_ms)
    shown = text_of(await client.get("/q/imports/active"))
    assert ("no living one says that it runs it" in shown) == is_lost


async def test_a_claim_that_a_stall_check_of_node_left_is_not_flagged(client, actors, redis):
    await actors.take("a")
    await redis.set(actors.keys.stall_block, "1", px=4900)
    assert "beeq worker has taken" not in text_of(await client.get("/q/imports/active"))
    assert "Nothing needs a person" in text_of(await client.get("/"))


async def test_an_old_note_does_not_count_for_another_workers_job(client, actors, redis):
    """A check after the dead worker's last beat has queued the job again; a mark would be there else."""
    await actors.take("a", claim="other.1:2")
    await actors.worker("host:1:aaaaaaaa", beat_ms=20_000, a=30_000)
    await actors.worker("host:2:bbbbbbbb", beat_ms=100)
    await redis.set(actors.keys.stall_block, "1", px=3000)
    shown = text_of(await client.get("/q/imports/active"))
    for text in ("has run for", "its worker's last beat"):
        assert text not in shown


async def test_a_note_after_the_last_check_is_told_as_late(client, actors, redis):
    await actors.take("a")
    await actors.worker("host:1:aaaaaaaa", beat_ms=29_000, interval_ms=60_000, a=19_000)
    await redis.set(actors.keys.stall_block, "1", px=40_000)
    assert "its worker's last beat was 29s ago" in text_of(await client.get("/q/imports/active"))


async def test_of_two_notes_the_later_one_is_told(client, actors):
    await actors.take("a")
    await actors.worker("host:1:aaaaaaaa", beat_ms=15_000, a=600_000)
    await actors.worker("host:2:bbbbbbbb", beat_ms=100, a=60_000)
    shown = text_of(await client.get("/q/imports/active"))
    assert "has run for 1m on host:2:bbbbbbbb" in shown
    assert "last beat" not in shown


async def test_several_lost_jobs_are_counted(client, actors):
    await actors.take("first", *(f"n{n}" for n in range(300)))
    overview = text_of(await client.get("/"))
    assert f"301 active jobs have lost their worker, as first: {NO_WORKER}" in overview


async def test_a_filtered_list_is_flagged_as_well(client, actors):
    await actors.take("a")
    assert NO_WORKER in text_of(await client.get("/q/imports/active?older=1h"))


async def test_an_id_of_no_utf_8_is_told_nothing_of_another(client, actors, redis):
    await actors.take("\N{REPLACEMENT CHARACTER}", claim=None)
    await redis.hset(actors.keys.claims, b"\xff", "token.1:1")
    await redis.hset(actors.keys.jobs, b"\xff", "{}")
    await redis.lpush(actors.keys.active, b"\xff")
    await actors.worker("host:2:bbbbbbbb", beat_ms=100, **{"\N{REPLACEMENT CHARACTER}": 5000})
    shown = await client.get("/q/imports/active")
    assert shown.status_code == 200
    assert "has run for" not in text_of(shown)


async def test_a_key_of_a_wrong_type_leaves_the_list_alone(client, actors, redis):
    await actors.take("a")
    await redis.set(actors.keys.stalling, "x")
    shown = await client.get("/q/imports/active")
    assert "a" in links_of(shown)
    assert "could not be seen" in text_of(shown)
    assert "not all active jobs could be looked at" in text_of(await client.get("/"))


async def test_hostile_workers_and_ids_are_text_and_cut(client, actors):
    hostile = f"<script>alert(1)</script>\u202e\x1b{'x' * 3000}"
    await actors.take(hostile, "late")
    await actors.worker(hostile, beat_ms=20_000, **{hostile: 5000})
    await actors.worker(f"{hostile}:1:a", beat_ms=100, late=-5000)
    for address in ("/", "/q/imports/active"):
        shown = await client.get(address)
        assert "its worker's last beat was 20s ago" in shown.text.replace("&#39;", "'")
        assert "x" * 200 not in text_of(shown)
        for text in ("<script>alert", "\u202e", "\x1b"):
            assert text not in shown.text
    assert "has run for 0ms" in text_of(shown)


@pytest.mark.more_rights("a user of its own")
async def test_a_user_without_a_right_sees_the_list(valkey, prefix, actors, redis):
    await actors.take("a")
    rights = ("on", ">secret", "~*", "&*", "+@all", "-sismember")
    await redis.execute_command("ACL", "SETUSER", "looker", "reset", *rights)
    page = dashboard(
        redis=valkey.url.replace("redis://", "redis://looker:secret@"), prefixes=[prefix], policy=Policy()
    )
    try:
        async with page.running(), client_of(page) as client:
            shown = await client.get("/q/imports/active")
            assert "a" in links_of(shown)
            assert "could not be seen" in text_of(shown)
            assert "not all active jobs could be looked at" in text_of(await client.get("/"))
    finally:
        await redis.execute_command("ACL", "DELUSER", "looker")


async def test_redis_that_goes_meanwhile_is_no_good_news(own_valkey, monkeypatch):
    with own_valkey.sync_client() as redis:
        redis.lpush("bq:imports:active", "a")
        redis.hset("bq:imports:jobs", "a", "{}")
        redis.hset("bq:imports:beeq:claims", "a", "token.1:1")
    page = dashboard(redis=own_valkey.url, policy=Policy())

    async def away(*arguments, **options) -> ActiveLook:
        own_valkey.stop()
        return await look_at_active(*arguments, **options)

    async with page.running(), client_of(page) as client:
        monkeypatch.setattr(active_jobs, "look_at_active", away)
        shown = text_of(await client.get("/"))
    assert "Nothing needs a person." not in shown
    assert "not all active jobs could be looked at" in shown


async def test_losses_not_known_yet_are_said(make_page, actors, monkeypatch):
    await actors.take("a")
    go_on = asyncio.Event()

    async def slow(*arguments, **options) -> ActiveLook:
        await go_on.wait()
        return await look_at_active(*arguments, **options)

    monkeypatch.setattr(active_jobs, "look_at_active", slow)
    monkeypatch.setattr(waits, "OVERVIEWS_LOSSES_S", 0.05)
    async with client_of(make_page()) as client:
        shown = await client.get("/")
        assert "active jobs are still being looked at" in text_of(shown)
        assert 'http-equiv="refresh"' in shown.text
        monkeypatch.setattr(waits, "ACTIVITY_S", 0.05)
        assert "could not be seen" in text_of(await client.get("/q/imports/active"))
        go_on.set()
        monkeypatch.setattr(waits, "OVERVIEWS_LOSSES_S", 20.0)
        assert NO_WORKER in text_of(shown := await client.get("/"))
        assert 'http-equiv="refresh"' not in shown.text
