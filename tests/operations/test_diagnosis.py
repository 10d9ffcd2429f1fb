"""What a diagnosis finds, each finding caused here; and that it repairs what it has named, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from beeq import Finding
from beeq.operations.diagnosis import server
from beeq.operations.diagnosis.doctor import KEY_TYPES
from beeq.operations.diagnosis.workers import check_workers
from beeq.operations.live_workers import LiveWorker
from beeq.protocol.keys import BEE_SUFFIXES, SIDE_SUFFIXES
from beeq.protocol.running import ProcessFacts, encode_facts
from beeq.sync import Queue as SyncQueue
from tests.support.samples import job_record

STATES = ("waiting", "hidden", "active", "delayed", "succeeded", "failed")


@pytest.fixture
def queue(make_queue):
    return make_queue(is_worker=False, activate_delayed_jobs=False)


async def put(redis: Any, queue: Any, state: str, *ids: str, has_record: bool = True) -> None:
    """Put ids into a list or set."""
    if has_record:
        status = state if state in ("succeeded", "failed") else "created"
        await redis.hset(queue.keys.jobs, mapping={each: job_record(status) for each in ids})
    key = queue.keys.to_key("beeq:hidden" if state == "hidden" else state)
    if state in ("waiting", "active", "hidden"):
        await redis.lpush(key, *ids)
    elif state == "delayed":
        later = int((await redis.time())[0]) * 1000 + 3_600_000
        await redis.zadd(key, dict.fromkeys(ids, later))
    else:
        await redis.sadd(key, *ids)


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    assert len({each.kind for each in findings}) == len(findings)
    return {each.kind: each for each in findings}


async def test_a_queue_in_order_has_no_findings(queue, redis):
    for n, state in enumerate(STATES):
        await put(redis, queue, state, *(f"{state}{each}" for each in range(600 if n < 2 else 3)))
    looked_at: list[int] = []
    assert await queue.diagnose(on_looked=looked_at.append) == []
    assert looked_at == sorted(looked_at)
    assert looked_at[-1] == 2 * 1212
    await redis.delete(queue.keys.hidden, queue.keys.jobs, *map(queue.keys.to_key, set(STATES) - {"hidden"}))


async def test_ids_without_a_record_are_found_and_taken_out(queue, redis):
    for state in STATES:
        await put(redis, queue, state, f"{state}-ghost", has_record=False)
        await put(redis, queue, state, f"{state}-job")
    (ghosts,) = await queue.diagnose()
    assert (ghosts.kind, ghosts.count, ghosts.is_problem) == ("ghosts", 6, True)
    assert sorted(ghosts.ids) == sorted(f"{state}-ghost" for state in STATES)
    assert ghosts.text.startswith(
        "6 ids have no record, in waiting, hidden, active, delayed, succeeded, failed:"
    )
    assert await queue.repair([ghosts]) == 6
    assert await queue.diagnose() == []
    assert await redis.lpop(queue.keys.hidden) == "hidden-job"
    await redis.hdel(queue.keys.jobs, "hidden-job")


async def test_records_that_are_nowhere_are_put_in_their_place(queue, redis):
    records = {
        "lost": job_record(),
        "done": job_record("succeeded"),
        "bad": job_record("failed"),
        "odd": "{",
    }
    await redis.hset(queue.keys.jobs, mapping=records)
    await put(redis, queue, "waiting", "first")
    (strays,) = await queue.diagnose()
    assert strays.kind == "strays"
    assert strays.fix == "puts them where their status says, 2 into waiting, 1 into succeeded, 1 into failed"
    assert await queue.repair([strays]) == 4
    waiting = await redis.lrange(queue.keys.waiting, 0, -1)
    assert (waiting[-1], set(waiting)) == ("first", {"first", "lost", "odd"})
    assert await redis.sismember(queue.keys.succeeded, "done")
    assert await redis.sismember(queue.keys.failed, "bad")


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (("waiting", "failed"), "waiting"),
        (("waiting", "active"), "active"),
        (("waiting", "waiting"), "waiting"),
        (("waiting", "delayed"), "waiting"),
        (("delayed", "succeeded"), "delayed"),
        (("failed", "succeeded"), "succeeded"),
        (("succeeded", "failed"), "failed"),
    ],
    ids="-".join,
)
async def test_an_id_in_several_places_keeps_one(queue, redis, states, kept):
    for state in states:  # the last one writes the record
        await put(redis, queue, state, "7")
    (doubles,) = await queue.diagnose()
    assert (doubles.kind, doubles.count) == ("doubles", 1)
    assert await queue.repair([doubles]) == 1
    assert await queue.diagnose() == []
    assert await queue.is_in_set("7", kept)


async def test_what_was_named_is_left_alone_where_it_moved(queue, redis):
    await put(redis, queue, "waiting", "ghost", has_record=False)
    await redis.hset(queue.keys.jobs, "stray", job_record())
    findings = await queue.diagnose()
    await redis.hset(queue.keys.jobs, "ghost", job_record())
    await put(redis, queue, "delayed", "stray")
    await put(redis, queue, "waiting", "later", has_record=False)
    assert await queue.repair(findings) == 0
    assert await queue.is_in_set("ghost", "waiting")
    assert await queue.is_in_set("later", "waiting"), "it was not named"
    assert not await queue.is_in_set("stray", "waiting")
    assert await queue.repair(await queue.diagnose()) == 1


async def test_leftovers_are_dropped_where_nobody_does_it(queue, redis):
    await put(redis, queue, "waiting", "1")
    for key in (queue.keys.claims, queue.keys.results):
        await redis.hset(key, mapping={"1": "x.1:1", "2": "x.1:1", "3": "x.1:1"})
    (left,) = await queue.diagnose()
    assert (left.kind, left.count) == ("leftovers", 4)
    assert "2 of 3 looked at in beeq:claims" in left.text
    now_ms = int((await redis.time())[0]) * 1000
    await redis.zadd(queue.keys.workers, {"host:1:a": now_ms})
    assert await queue.diagnose() == [], "a living worker drops them by and by"
    assert await queue.repair([left]) == 4
    assert await redis.hkeys(queue.keys.claims) == ["1"]


async def test_jobs_that_nobody_raises_are_said(queue, redis):
    await redis.hset(queue.keys.jobs, "1", job_record())
    await redis.zadd(queue.keys.delayed, {"1": 1000})
    (overdue,) = await queue.diagnose()
    assert (overdue.kind, overdue.fix) == ("overdue", "")
    await redis.zadd(queue.keys.delayed, {"1": "-inf"})
    (overdue,) = await queue.diagnose()
    assert "inf" not in overdue.text


async def test_more_than_is_looked_at_again_is_a_problem(queue, redis, monkeypatch):
    monkeypatch.setattr("beeq.operations.diagnosis.places._MOST_SUSPECTS", 3)
    await redis.lpush(queue.keys.waiting, *(f"ghost{number}" for number in range(5)))
    ghosts, more = await queue.diagnose()
    assert (ghosts.kind, ghosts.count) == ("ghosts", 3)
    assert (more.kind, more.is_problem) == ("not-looked-at", True)
    assert more.text.startswith("2 more ids look wrong")
    assert await queue.repair([ghosts]) == 3
    (ghosts,) = await queue.diagnose()
    assert await queue.repair([ghosts]) == 2
    assert await queue.diagnose() == []


async def test_keys_of_the_wrong_type_are_named(queue, redis):
    await redis.set(queue.keys.claims, "text")
    await redis.lpush(queue.keys.paused, "a list")
    await redis.hset(queue.keys.jobs, "stray", job_record())
    findings = await queue.diagnose()
    texts = [each.text for each in findings if each.kind == "wrong-type"]
    assert texts == [
        f"the key {queue.keys.claims} is not a hash: rename it or delete it",
        f"the key {queue.keys.paused} is not a string: rename it or delete it",
    ]
    assert findings[-1].kind == "not-looked-at"
    assert await queue.repair(findings) == 0
    await redis.delete(*queue.keys.every())


def test_every_key_has_a_type():
    passing = {"beeq:tried", "beeq:written"}
    assert set(KEY_TYPES) >= {*BEE_SUFFIXES, *SIDE_SUFFIXES} - passing


async def test_ids_of_any_text_are_mended(queue, redis):
    ids = ["a b", "{x}", "*", "größe\x1b[2J", "x" * 512, "17"]
    await put(redis, queue, "waiting", *ids, has_record=False)
    (ghosts,) = await queue.diagnose()
    assert await queue.repair([ghosts]) == len(ids)


async def test_the_blocking_queue_diagnoses_too(queue, redis, valkey, queue_name):
    await put(redis, queue, "failed", "ghost", has_record=False)

    def repair() -> int:
        with SyncQueue(queue_name, redis=valkey.url) as blocking:
            assert isinstance(blocking.diagnose_server(), list)
            return blocking.repair(blocking.diagnose())

    assert await asyncio.to_thread(repair) == 1


# The server.


class FakePipeline:
    """Answers each command with what the test says; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"TIME": [b"1000", b"0"], "INFO": b"", **answers}

    async def call(self, *words: Any, repeatable: bool = False) -> Any:
        assert repeatable
        answer = self.answers[words[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run(self, *_script: Any) -> Any:
        return self.answers.get("EVALSHA", [])


async def kinds(*, now_ms: int = 1_000_000, **answers: Any) -> dict[str, Finding]:
    from beeq.protocol.keys import Keys

    pipeline: Any = FakePipeline(**answers)
    return by_kind(await server.check_server(pipeline, Keys("bq", "mail"), now_ms=lambda: now_ms))


@pytest.mark.parametrize(
    ("info", "kind", "text"),
    [
        (b"redis_version:6.0.16", "server-version", "Redis 6.0.16 is too old"),
        (b"maxmemory_policy:allkeys-lru\r\nmaxmemory:100", "eviction-policy", "when more than 100 bytes"),
        (b"maxmemory_policy:volatile-ttl\r\nmaxmemory:0", "eviction-policy", "which it is not now"),
        (b"maxmemory:1000\r\nused_memory:950", "memory", "950 of 1000 bytes"),
        (b"rdb_last_bgsave_status:err", "persistence", "the last snapshot could not be saved"),
    ],
)
async def test_what_is_wrong_with_the_server_is_said(info, kind, text):
    found = await kinds(INFO=info)
    assert found.keys() == {kind}
    assert text in found[kind].text


@pytest.mark.parametrize(
    "info",
    [
        b"redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1",
        b"redis_version:6.2.0\r\nmaxmemory:1000\r\nused_memory:10",
        b"# Server\r\nodd line\r\nredis_version:unknown\r\nmaxmemory:many",
    ],
)
async def test_a_good_server_has_no_findings(info):
    assert await kinds(INFO=info) == {}


async def test_what_is_kept_on_disk_is_said():
    nothing = await kinds(INFO=b"aof_enabled:0", CONFIG=[b"save", b""])
    assert nothing["persistence"].is_problem
    snapshots = await kinds(INFO=b"aof_enabled:0", CONFIG=[b"save", b"3600 1"])
    assert not snapshots["persistence"].is_problem
    assert snapshots["persistence"].fix == ""


@pytest.mark.parametrize(
    ("now_ms", "text"), [(1_005_000, "5.0 s ahead of"), (990_000, "10.0 s behind"), (1_000_900, "")]
)
async def test_a_clock_that_differs_is_said(now_ms, text):
    found = await kinds(now_ms=now_ms)
    assert [text in each.text for each in found.values()] == [True] * bool(text)


@pytest.mark.more_rights("a user of its own")
async def test_missing_rights_are_said(own_valkey, make_queue):
    async with own_valkey.client() as admin:
        await admin.execute_command(
            *("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-zadd", "-info", "-config")
        )
    url = own_valkey.url.replace("redis://", "redis://few:pw@")
    queue = make_queue(redis=url, is_worker=False, activate_delayed_jobs=False)
    queue.on("error", lambda _error: None)
    found = by_kind(await queue.diagnose_server())
    assert found.keys() == {"rights", "not-looked-at"}
    assert "ZADD" in found["rights"].text


@pytest.mark.more_rights("what an administrator may do")
async def test_the_eviction_policy_is_set_if_that_was_named(own_valkey, make_queue):
    queue = make_queue(redis=own_valkey.url, is_worker=False)
    async with own_valkey.client(decode_responses=True) as admin:
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        findings = await queue.diagnose_server()
        others = [each for each in findings if each.kind != "eviction-policy"]
        assert await queue.repair(others) == 0
        assert (await admin.config_get("maxmemory-policy"))["maxmemory-policy"] == "allkeys-lru"
        assert await queue.repair(findings) == 1
        assert (await admin.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"


# The workers.


def worker(name: str, **said: Any) -> LiveWorker:
    return LiveWorker(name, "host", 1, 0, 0, **{"version": "1.0", "stall_interval_ms": 5000, **said})


def test_workers_that_are_alike_have_no_findings():
    assert check_workers([]) == []
    assert check_workers([worker("a"), worker("b", clock_skew_ms=-900)]) == []
    assert check_workers([worker("a"), worker("b", stall_interval_ms=None)]) == []


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ({"stall_interval_ms": 30_000}, "stall-intervals", "30s (1 worker, b), 5.0s (2 workers, a)"),
        ({"version": "0.9"}, "versions", "0.9 (1 worker, b), 1.0 (2 workers, a)"),
        ({"version": ""}, "versions", "1.0 (2 workers, a), an earlier one (1 worker, b)"),
        ({"clock_skew_ms": 5000}, "clock", "the clock of b is 5.0s ahead of Redis's"),
        ({"clock_skew_ms": -61_000}, "clock", "the clock of b is 1m 1s behind Redis's"),
    ],
)
def test_what_differs_among_workers_is_said(said, kind, text):
    (finding,) = check_workers([worker("a"), worker("b", **said), worker("c")])
    assert (finding.kind, finding.fix) == (kind, "")
    assert text in finding.text


async def test_a_worker_beside_one_that_differs_is_found(queue, redis, make_queue, eventually):
    worker = make_queue(stall_interval=3000)

    @worker.process
    async def handle(job): ...

    await worker.ready()
    assert await eventually(queue.workers, 20)
    other = replace(queue.keys, worker="host:1:abc")
    now_ms = int((await redis.time())[0]) * 1000
    facts = ProcessFacts(version="0.0.1", clock_ms=now_ms, stall_interval_ms=6000)
    await redis.hset(other.running, mapping={"process": encode_facts(facts), "noted": now_ms})
    await redis.zadd(queue.keys.workers, {"host:1:abc": now_ms})
    kinds = [each.kind for each in await queue.diagnose()]
    await redis.delete(other.running)
    assert kinds == ["stall-intervals", "versions"]
