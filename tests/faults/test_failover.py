"""A primary dies, or is demoted, under load: producers and workers find the next one by themselves.

What was confirmed and had reached the replica has its outcome in the end. A job runs a second time only
if its outcome never reached the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.crc import key_slot

from beeq import JobLost, Queue, RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.settings import Settings
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.scheduling.ahead import AheadJobs
from tests.support import audit
from tests.support.server import Server
from tests.support.topologies import Cluster, Pair, ask, is_in_step, role, until, writes_held_back
from tests.support.waiting import eventually, pause

pytestmark = pytest.mark.external

#: Nothing here needs a stall check: none comes while a test runs.
PATIENT = {"stall_interval": 60_000}
#: A failure costs little.
EAGER = {"initial_redis_failure_retry_delay": 20, "delayed_debounce": 10, "redis_timeout": 2000}
KINDS = (*["succeeds"] * 6, "fails", "retries", "delayed", "slow")
#: A primary that hears no replica takes no writes: its clients look elsewhere.
CAUTIOUS = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")
CLUSTER_OPTIONS = ("--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")
TAG = "a"
SLOT = key_slot(TAG.encode())


class Load:
    """A producer that saves all the time, and a worker of ten places, until ``finish``.

    A save that fails is tried again under the same ids, as a careful producer would do. Neither
    queue may emit an error but those that say that it passes.
    """

    def __init__(self, make_queue: Callable[..., Any], **settings: Any) -> None:
        self._producer = make_queue(is_worker=False, **EAGER, **settings)
        self._worker = make_queue(**EAGER, **settings)
        self.keys: Keys = self._producer.keys
        self.saved: list[str] = []
        self.runs: Counter[str] = Counter()
        self.lost: list[str] = []  # outcomes that were dropped
        self.errors: list[BaseException] = []  # that do not say "not now"
        self._over = asyncio.Event()
        self._worker.process(self._handle, concurrency=10)
        self._worker.on("error", self._note)
        self._producer.on("error", self._note)
        self._producing = asyncio.ensure_future(self._produce())
        self.results: dict[str, asyncio.Future[Any]] = {}  # of jobs that somebody waits for all the time

    def _note(self, error: BaseException) -> None:
        if isinstance(error, JobLost):
            self.lost.append(error.job_id)
        elif not isinstance(error, RedisUnavailable):
            self.errors.append(error)

    async def _handle(self, job: Any) -> str:
        self.runs[job.id] += 1
        kind = job.data["kind"]
        await pause(0.2 if kind == "slow" else 0.005)  # the work
        if kind == "fails" or (kind == "retries" and job.options["retries"] > 0):
            raise ValueError(kind)
        return str(job.id)

    def _made(self, number: int) -> Any:
        kind = KINDS[number % len(KINDS)]
        job = self._producer.create_job({"kind": kind}).set_id(f"job-{number}")
        if kind == "retries":
            job.retries(1)
        if kind == "delayed":
            job.delay_until(self._producer.now_ms() + 50)
        return job

    async def _produce(self) -> None:
        """Save ten jobs one by one, then ten at once, and so on."""
        number = 0
        while not self._over.is_set():
            for _ in range(10):
                await self._save_until_confirmed([self._made(number)])
                number += 1
            await self._save_until_confirmed([self._made(number + more) for more in range(10)])
            number += 10
            await pause(0.02)

    async def _save_until_confirmed(self, jobs: list[Any]) -> None:
        ids = [job.id for job in jobs]
        while jobs:
            with contextlib.suppress(RedisUnavailable):
                if len(jobs) == 1:
                    await jobs[0].save()
                    jobs = []
                else:
                    jobs = list(await self._producer.save_all(jobs))
        if not self.results or len(self.results) < len(self.saved) // 50:
            self._wait_for_result(ids[-1])
        self.saved += ids

    def _wait_for_result(self, job_id: str) -> None:
        async def result() -> Any:
            while True:
                with contextlib.suppress(RedisUnavailable):
                    job = await self._producer.get_job(job_id)
                    return await job.result(timeout=20_000)

        self.results[job_id] = asyncio.ensure_future(result())

    async def flows(self, count: int = 60) -> None:
        """Wait until so many more jobs have been saved, and as many runs were begun."""
        saved, runs = len(self.saved), self.runs.total()
        await eventually(lambda: len(self.saved) >= saved + count and self.runs.total() >= runs + count, 15)

    async def stop_saving(self) -> None:
        """Save nothing more."""
        self._over.set()
        await asyncio.wait_for(asyncio.shield(self._producing), 15)

    async def finish(self, primary: Callable[[], Server]) -> None:
        """Save nothing more, and wait until all that was saved has ended, as it had to."""
        await self.stop_saving()
        await eventually(lambda: asyncio.to_thread(self._is_worked_off, primary()), 15)
        with primary().sync_client() as client:
            assert audit.faults(client, self.keys) == []
            succeeded, failed = client.smembers(self.keys.succeeded), client.smembers(self.keys.failed)
        assert succeeded | failed == set(self.saved)
        assert failed == {job_id for job_id in self.saved if kind_of(job_id) == "fails"}
        assert self.errors == []
        assert self.results
        for job_id in self.results.keys() & set(self.saved):
            waiting = self.results[job_id]
            if kind_of(job_id) == "fails":
                with contextlib.suppress(Exception):
                    await waiting
                assert type(waiting.exception()).__name__ == "JobFailed"
            else:
                assert await waiting == job_id

    def _is_worked_off(self, server: Server) -> bool:
        keys = self.keys
        with server.sync_client() as client:
            ended = client.scard(keys.succeeded) + client.scard(keys.failed)
            return ended >= len(self.saved) and not client.exists(keys.waiting, keys.active, keys.delayed)

    def ran_too_often(self, job_ids: Any = None) -> dict[str, int]:
        """Return the jobs among these, by default all, that ran more often than their kind has to."""
        every = self.runs if job_ids is None else job_ids
        return {
            job_id: self.runs[job_id]
            for job_id in every
            if self.runs[job_id] > (2 if kind_of(job_id) == "retries" else 1)
        }


def kind_of(job_id: str) -> str:
    """Return which of the kinds a job is."""
    return KINDS[int(job_id.removeprefix("job-")) % len(KINDS)]


@pytest.fixture
async def load(make_queue, expect_errors) -> AsyncIterator[Callable[..., Load]]:
    """``load(redis=…, **settings)``: a load that ends with the test."""
    made: list[Load] = []

    def make(**settings: Any) -> Load:
        made.append(Load(make_queue, **settings))
        return made[-1]

    yield make
    for each in made:
        tasks = [each._producing, *each.results.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def pair(tmp_path):
    with Pair(tmp_path) as started:
        yield started


@pytest.fixture
def cautious_pair(tmp_path):
    with Pair(tmp_path, *CAUTIOUS) as started:
        yield started


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path, *CLUSTER_OPTIONS, tag=TAG) as started:
        yield started


async def test_a_killed_primary_with_a_full_replica_costs_nothing(pair, load):
    """A job that runs meanwhile is recorded by the next primary, and no job runs twice."""
    work = load(redis=pair.url, **PATIENT)
    await work.flows()

    def kill():
        with writes_held_back(pair.primary, pair.replica):
            pair.primary.kill()
        pair.change_places()

    await asyncio.to_thread(kill)
    await work.flows()
    await work.finish(lambda: pair.primary)
    assert work.ran_too_often() == {}
    assert work.lost == []


async def test_a_killed_primary_loses_nothing_the_replica_had(pair, load, make_queue):
    """Of what the replica had recorded nothing runs again; the rest of what it knew is worked off."""
    work = load(redis=pair.url, stall_interval=1000)
    await work.flows()
    replica = pair.replica

    def kill():
        pair.primary.kill()
        with replica.sync_client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "down")
            ended = client.smembers(work.keys.succeeded) | client.smembers(work.keys.failed)
            known = set(client.hkeys(work.keys.jobs))
        pair.change_places()
        return ended, known

    ended, known = await asyncio.to_thread(kill)
    await work.flows()
    await work.stop_saving()
    with replica.sync_client() as client:
        unreached = set(work.saved) - set(client.hkeys(work.keys.jobs))
    assert not unreached & known
    # The producer saves in order: what is missing was confirmed in the primary's last moment.
    numbers = sorted(int(job_id.removeprefix("job-")) for job_id in unreached)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)) if numbers else [])
    work.saved = [job_id for job_id in work.saved if job_id not in unreached]
    await work.finish(lambda: pair.primary)
    assert ended
    assert work.ran_too_often(ended) == {}
    assert max(work.runs.values()) <= 4  # twice what the kind that runs twice has to


async def test_a_planned_failover_loses_nothing_and_all_follow(cautious_pair, load):
    """The Sentinel demotes the old primary only a second later; until then it takes no writes."""
    pair = cautious_pair
    work = load(redis=pair.url, **PATIENT)
    await work.flows()

    def fail_over():
        old = pair.primary
        with writes_held_back(old, pair.replica):
            pair.fail_over()
            until(lambda: role(pair.replica) == "master")
        pair.change_places()
        # A write here needs a replica first.
        ask(pair.primary, "CONFIG", "SET", "min-replicas-to-write", "0")

    await asyncio.to_thread(fail_over)
    await work.flows()
    await asyncio.to_thread(until, lambda: is_in_step(pair.primary, pair.replica))
    await work.flows()
    await work.finish(lambda: pair.primary)
    assert work.ran_too_often() == {}
    assert work.lost == []


@pytest.mark.parametrize("what", ["killed", "frozen"])
async def test_a_cluster_whose_primary_dies_goes_on_with_the_replica(cluster, load, what):
    """Also if the URL names nobody else, and if the dead one still takes connections."""
    owner, replica = cluster.owner(SLOT), cluster.replica
    work = load(redis=f"redis+cluster://127.0.0.1:{owner.port}", prefix=f"{{{TAG}}}", **PATIENT)
    await work.flows()

    def fell():
        with writes_held_back(owner, replica):
            if what == "killed":
                owner.kill()
            else:
                owner.pause()
            until(lambda: role(replica) == "master")
            if what == "frozen":
                owner.resume()
                until(lambda: is_in_step(replica, owner))

    await asyncio.to_thread(fell)
    await work.flows()
    await work.finish(lambda: replica)
    assert work.ran_too_often() == {}
    assert work.lost == []


async def test_a_cluster_changes_its_primary_and_nothing_is_lost(cluster, load):
    """The old primary keeps its connections, and refuses what comes over them."""
    owner, replica = cluster.owner(SLOT), cluster.replica
    work = load(redis=f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}", prefix=f"{{{TAG}}}", **PATIENT)
    await work.flows()

    def fail_over(old, new):
        ask(new, "CLUSTER", "FAILOVER")
        until(lambda: role(new) == "master" and is_in_step(new, old))

    await asyncio.to_thread(fail_over, owner, replica)
    await work.flows()
    await asyncio.to_thread(fail_over, replica, owner)
    await work.flows()
    await work.finish(lambda: owner)
    assert work.ran_too_often() == {}
    assert work.lost == []


async def test_a_slot_moves_under_load_and_nothing_is_lost(cluster, load):
    """While some of its keys are here and some there, the queue waits."""
    source = cluster.owner(SLOT)
    target = next(node for node in cluster.nodes if node not in (source, cluster.replica))
    work = load(redis=f"redis+cluster://127.0.0.1:{source.port}", prefix=f"{{{TAG}}}", **PATIENT)
    await work.flows()
    await asyncio.to_thread(cluster.move, SLOT, target)
    assert cluster.owner(SLOT) is target
    await work.flows()
    await work.finish(lambda: target)
    assert work.ran_too_often() == {}
    assert work.lost == []


async def test_an_idle_worker_notices_that_its_primary_was_demoted(pair, make_queue, expect_errors):
    """It blocks for the next job there, over an open connection."""
    queue = make_queue(redis=pair.url, **EAGER, **PATIENT)
    await notices(queue, pair.primary, pair.replica, lambda: ask(pair.primary, "FAILOVER"))
    assert all(isinstance(error, RedisUnavailable) for error in expect_errors), expect_errors


async def test_an_idle_worker_notices_that_another_node_owns_its_slot(cluster, make_queue, expect_errors):
    owner, replica = cluster.owner(SLOT), cluster.replica
    url = f"redis+cluster://127.0.0.1:{owner.port}"
    queue = make_queue(redis=url, prefix=f"{{{TAG}}}", **EAGER, **PATIENT)
    await notices(queue, owner, replica, lambda: ask(replica, "CLUSTER", "FAILOVER"))
    assert all(isinstance(error, RedisUnavailable) for error in expect_errors), expect_errors


async def notices(queue: Queue, old: Server, new: Server, fail_over: Callable[[], Any]) -> None:
    """Fail over while a worker waits for a job at the old primary; it has to wait at the new one then."""

    @queue.process(concurrency=2)
    async def handler(job: Any) -> Any:
        return job.data + 1

    assert await (await queue.enqueue(1)).result(timeout=5000) == 2
    await eventually(lambda: asyncio.to_thread(blocked, old))
    await asyncio.to_thread(fail_over)
    await eventually(lambda: asyncio.to_thread(blocked, new), 15)
    assert await (await queue.enqueue(2)).result(timeout=5000) == 3


def blocked(server: Server) -> int:
    """Return how many clients wait for a job there."""
    with server.sync_client() as client:
        return int(client.info("clients")["blocked_clients"])


async def test_silent_sentinels_and_nodes_are_passed_over(pair, cluster, own_valkey, make_queue):
    """The first address of a URL must not decide over the others."""
    own_valkey.pause()
    silent = f"127.0.0.1:{own_valkey.port}"
    for url, settings in (
        (f"redis+sentinel://{silent},127.0.0.1:{pair.sentinel.port}/mymaster/0", {}),
        (f"redis+cluster://{silent},127.0.0.1:{cluster.nodes[0].port}", {"prefix": f"{{{TAG}}}"}),
    ):
        queue = make_queue(redis=url, is_worker=False, redis_timeout=1500, **settings)
        assert (await queue.enqueue(1)).id == "1"


async def test_a_heartbeat_that_nobody_heard_is_repeated_at_once(own_valkey, queue_name):
    """Not at its next turn, 10 s later: after a failover a stall check may come any moment."""
    keys = Keys("bq", queue_name)
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    own_valkey.stop()
    heartbeat = Heartbeat(
        Connector(own_valkey.url, timeout_ms=1000, slot_key=keys.jobs),
        keys,
        Settings(stall_interval=20_000, redis_timeout=1000),
        worker="somebody",
        held=lambda: ({b"1": b"claim:1"}, b""),
        look=lambda: None,
        ahead=AheadJobs(),
        on_returned=lambda _returned: None,
        on_living=lambda _count: None,
        take_counts=str,
        on_cancelled=lambda _claims: None,
        on_lost=lambda _claims: None,
        on_error=lambda _error: loop.call_soon_threadsafe(failed.set),
        patience_s=5,
    )
    await asyncio.wait_for(failed.wait(), 30)
    await asyncio.to_thread(own_valkey.start)
    async with own_valkey.client(decode_responses=True) as client:
        await eventually(lambda: client.zscore(keys.workers, "somebody"), 6)
    heartbeat.stop()
    await asyncio.to_thread(heartbeat.join, 5)
