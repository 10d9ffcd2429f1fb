"""A master is replaced and goes on answering, or freezes: everything of a queue goes to the next one, together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from tests.support.proxy import Proxy, proxy_to
from tests.support.server import Server
from tests.support.topologies import NAME, Pair, ask, is_in_step, role, until
from tests.support.waiting import eventually, pause

#: Nothing here needs a stall check: none comes while a test runs.
SETTINGS = {"stall_interval": 60_000, "delayed_debounce": 10}


class Fleet:
    """A producer that saves a few hundred jobs a second, and a worker, until ``stop``."""

    def __init__(self, make_queue: Callable[..., Any], target: Any, **settings: Any) -> None:
        self.make_queue = make_queue
        self.target = target
        self.producer = make_queue(redis=target, is_worker=False, **SETTINGS, **settings)
        self.worker = make_queue(redis=target, **SETTINGS, **settings)
        self.saved: list[str] = []
        self.ran: list[str] = []
        self.heard: list[str] = []
        self.worker.process(self._run, concurrency=10)
        self.producer.on("job succeeded", lambda job_id, _result: self.heard.append(job_id))
        self._saving = asyncio.ensure_future(self._save())

    async def _run(self, job: Any) -> None:
        self.ran.append(job.id)

    async def _save(self) -> None:
        number = 0
        while True:
            number += 1
            job = self.producer.create_job(number).set_id(f"job-{number}")
            try:
                await job.save()
            except ConnectionError:
                continue  # whether it was saved is unknown
            self.saved.append(job.id)
            await pause(0.003)

    async def flows(self) -> None:
        """Wait until jobs have been saved, have run and were heard of, from now on."""
        parts = (self.saved, self.ran, self.heard)
        before = [len(part) for part in parts]
        await eventually(
            lambda: all(len(part) > count + 30 for part, count in zip(parts, before, strict=True)), 15
        )

    async def stop(self) -> None:
        """Save no more."""
        self._saving.cancel()
        await asyncio.wait([self._saving])

    async def lost(self, server: Server, saved: list[str]) -> list[str]:
        """Return those of the jobs that the server does not know."""
        async with server.client(decode_responses=True) as client:
            known = await client.hkeys(self.producer.keys.jobs)
            ended = await client.smembers(self.producer.keys.succeeded)
        return [job_id for job_id in saved if job_id not in {*known, *ended}]


@pytest.fixture
async def fleet(make_queue, expect_errors) -> AsyncIterator[Callable[..., Fleet]]:
    """``fleet(target, **settings)``; it ends with the test."""
    made: list[Fleet] = []

    def make(target: Any, **settings: Any) -> Fleet:
        made.append(Fleet(make_queue, target, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@pytest.fixture
def pair(tmp_path) -> Iterator[Pair]:
    """Its Sentinel demotes an old master after eight seconds, as Sentinels do."""
    with Pair(tmp_path, is_watched_closely=False) as started:
        yield started


def is_promoted(pair: Pair) -> bool:
    return role(pair.replica) == "master"


@pytest.mark.external
@pytest.mark.parametrize("given", ["a URL", "a client"])
async def test_all_follow_while_the_old_master_acknowledges(pair, fleet, make_queue, given):
    """Saves, jobs and events go to the new one at once, and those of who comes later meet them there."""
    sentinel = Sentinel([("127.0.0.1", pair.sentinel.port)])
    client = sentinel.master_for(NAME)
    work = fleet(pair.url if given == "a URL" else client)
    await work.flows()
    await asyncio.to_thread(pair.fail_over)
    await eventually(lambda: asyncio.to_thread(is_promoted, pair))
    await work.flows()
    since = len(work.saved)
    await work.flows()
    later, ran = make_queue(redis=pair.url, name=f"{work.producer.name}-later", **SETTINGS), []

    @later.process
    async def run(job):
        ran.append(job.id)

    early = make_queue(redis=pair.url, name=later.name, is_worker=False, **SETTINGS)
    await early.save_all([early.create_job(number) for number in range(20)])
    await eventually(lambda: len(ran) == 20)
    await work.stop()
    assert await asyncio.to_thread(role, pair.primary) == "master", "all this was before it was demoted"
    assert await work.lost(pair.replica, work.saved[since:]) == []
    await client.aclose()
    for member in sentinel.sentinels:
        await member.aclose()


@pytest.mark.external
async def test_heartbeats_follow_while_a_handler_blocks_the_loop(pair, make_queue, expect_errors):
    queue = make_queue(redis=pair.url, stall_interval=400)
    over = False

    def beats() -> bool:
        """Return whether the new master hears from the worker."""
        with pair.replica.sync_client() as client:
            return bool(client.zcard(queue.keys.workers))

    await queue.enqueue(1)  # its reply comes before the loop is blocked

    @queue.process
    async def block(_job):
        nonlocal over
        pair.fail_over()
        until(lambda: is_promoted(pair))
        with pair.replica.sync_client() as client:
            client.delete(queue.keys.workers)
        until(beats, 5)
        over = role(pair.primary) == "master"

    await eventually(lambda: over)


@pytest.mark.external
async def test_jobs_and_events_outlive_a_frozen_master_together(tmp_path, fleet):
    """It is silent for good: nobody waits for his own timeout once a Sentinel has named another."""
    with Pair(tmp_path) as pair:
        work = fleet(pair.url, redis_timeout=60_000)
        await work.flows()
        pair.primary.pause()
        try:
            await asyncio.to_thread(pair.change_places)
            await work.flows()
            await work.stop()
        finally:
            pair.replica.resume()


# One URL: a name, or a proxy, that leads to another server in the end.


@pytest.fixture
def servers(tmp_path) -> Iterator[tuple[Server, Server]]:
    """A master and its replica, which no Sentinel watches."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with Server(tmp_path / "first") as first, Server(tmp_path / "second") as second:
        replicate(second, of=first)
        yield first, second


def replicate(replica: Server, *, of: Server) -> None:
    ask(replica, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
    ask(of, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
    ask(replica, "REPLICAOF", "127.0.0.1", of.port)
    until(lambda: is_in_step(of, replica))


@pytest.fixture
async def proxy(servers) -> AsyncIterator[Proxy]:
    async with proxy_to(servers[0].port) as started:
        yield started


def hand_over(old: Server, new: Server) -> None:
    """Promote, and demote, as a managed service does."""
    ask(new, "REPLICAOF", "NO", "ONE")
    replicate(old, of=new)


async def nobody_is_at(server: Server) -> bool:
    """Return whether only its master, and who asks this, are connected."""
    async with server.client() as client:
        found = await client.client_list()
    return not [each for each in found if each["flags"] not in ("S", "M") and "client" not in each["cmd"]]


async def test_a_url_that_moves_is_followed_by_everything_idle(servers, proxy, make_queue, expect_errors):
    """Nothing writes, so there is no READONLY: events, an idle worker, its heartbeat."""
    old, new = servers
    queue = make_queue(redis=proxy.url, **SETTINGS)

    @queue.process
    async def add(job):
        return job.data + 1

    assert await (await queue.enqueue(1)).result(timeout=5000) == 2
    proxy.lead_to(new.port)
    await asyncio.to_thread(hand_over, old, new)
    await eventually(lambda: nobody_is_at(old), 10)
    assert await (await queue.enqueue(2)).result(timeout=5000) == 3


async def test_a_client_that_moves_is_followed_under_load(servers, proxy, fleet):
    """It was passed in; what was saved after the old master was demoted is with the new one."""
    old, new = servers
    async with redis.asyncio.Redis(port=proxy.port) as client:
        work = fleet(client)
        await work.flows()
        proxy.lead_to(new.port)
        await asyncio.to_thread(hand_over, old, new)
        await work.flows()
        since = len(work.saved)
        await work.flows()
        await work.stop()
        assert await work.lost(new, work.saved[since:]) == []


async def test_a_url_of_a_replica_works_once_it_is_promoted(servers, make_queue, expect_errors, caplog):
    _old, replica = servers
    queue = make_queue(redis=replica.url, initial_redis_failure_retry_delay=50, **SETTINGS)
    ran = []

    @queue.process
    async def run(job):
        ran.append(job.id)

    await eventually(lambda: f"127.0.0.1:{replica.port} is a replica" in caplog.text)
    with pytest.raises(ConnectionError, match="READONLY"):
        await queue.enqueue(1)
    await asyncio.to_thread(ask, replica, "REPLICAOF", "NO", "ONE")
    job = await queue.enqueue(2)
    await eventually(lambda: job.id in ran)
    assert (
        len([r for r in caplog.records if r.levelno == logging.WARNING and "is a replica" in r.message]) == 1
    )
