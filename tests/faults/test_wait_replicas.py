"""With ``wait_replicas`` a call returns only once replicas have the write, and raises if they do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import beeq.sync
from beeq import Job, NotReplicated, Queue, RedisError, RedisRefused, RedisUnavailable
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline
from beeq.redis.replicas import ReplicaWait
from beeq.redis.resp import pack
from beeq.service import QueueService
from tests.redis.scripted_peer import Peer, scripted_peer
from tests.support.server import Server
from tests.support.topologies import ask, is_in_step, until
from tests.support.waiting import eventually

#: Half of it is what replicas get: short where they do not answer.
SHORT = {"redis_timeout": 1000}
WEBHOOK = {"id": "hook", "webhookUrl": "https://example.org/", "payload": {}}


class Servers:
    """A primary and its replica."""

    def __init__(self, primary: Server, replica: Server) -> None:
        self.primary = primary
        self.replica = replica

    @contextlib.contextmanager
    def replica_frozen(self) -> Iterator[None]:
        """Let the replica confirm nothing; its connection stays open."""
        self.replica.pause()
        try:
            yield
        finally:
            self.replica.resume()

    def has_record(self, queue: Queue, job_id: str) -> bool:
        """Return whether the replica has the job, now."""
        return bool(ask(self.replica, "HEXISTS", queue.keys.jobs, job_id))

    def calls(self, command: str) -> int:
        """Return how often the primary was asked for a command."""
        with self.primary.sync_client() as client:
            return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with (
        Server(tmp_path_factory.mktemp("primary")) as primary,
        Server(tmp_path_factory.mktemp("replica")) as replica,
    ):
        ask(primary, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: is_in_step(primary, replica))
        yield Servers(primary, replica)


@pytest.fixture
async def patient_queue(servers: Servers, make_queue: Callable[..., Queue]) -> Queue:
    return await make_queue(redis=servers.primary.url, wait_replicas=1, is_worker=False).ready()


@pytest.fixture
async def queue(servers: Servers, make_queue: Callable[..., Queue]) -> Queue:
    queue = make_queue(redis=servers.primary.url, wait_replicas=1, is_worker=False, **SHORT)
    return await queue.ready()


async def failed_job(queue: Queue, servers: Servers) -> Job:
    """Return a job that has failed."""
    job = await queue.enqueue()
    for command in (("LREM", queue.keys.waiting, 0, job.id), ("SADD", queue.keys.failed, job.id)):
        await asyncio.to_thread(ask, servers.primary, *command)
    return job


#: The calls that wait, on a job that has failed or, for the first two, on another one.
COMMANDS: dict[str, Callable[[Queue, Job], Any]] = {
    "save": lambda queue, _job: queue.create_job().set_id("named").save(),
    "enqueue": lambda queue, _job: queue.enqueue(id="named"),
    "retry": lambda _queue, job: job.retry(),
    "remove": lambda _queue, job: job.remove(),
    "cancel": lambda queue, job: queue.cancel_job(job.id or ""),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_is_told_as_done_is_on_the_replica(patient_queue, servers, command):
    queue = patient_queue
    job = await (queue.enqueue() if command == "cancel" else failed_job(queue, servers))
    before = servers.calls("wait")
    await COMMANDS[command](queue, job)
    assert servers.calls("wait") == before + 1
    there = {"save": "named", "enqueue": "named", "retry": job.id}.get(command)
    if there is None:
        assert not servers.has_record(queue, job.id)
    else:
        assert servers.has_record(queue, there)


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_no_replica_confirms_is_said_to_be_unknown(queue, servers, command):
    """It is done, on this server: the error names the job, and says how many confirmed it, and in what time."""
    job = await (queue.enqueue() if command == "cancel" else failed_job(queue, servers))
    with servers.replica_frozen(), pytest.raises(NotReplicated) as raised:
        await COMMANDS[command](queue, job)
    job_id = "named" if command in ("save", "enqueue") else job.id
    assert raised.value.job_id == job_id
    assert str(raised.value) == (
        f"0 of 1 replicas confirmed it in 500 ms: whether job {job_id} outlasts a failover is unknown"
    )
    assert isinstance(raised.value, RedisUnavailable)
    state = await queue.job_state(job_id)
    assert (state is None or state.ended is not None) is (command in ("remove", "cancel"))


async def test_a_save_that_was_not_confirmed_gives_the_job_its_id(queue, servers):
    job = queue.create_job({"a": 1})
    with servers.replica_frozen(), pytest.raises(NotReplicated) as raised:
        await job.save()
    assert job.id is not None
    assert raised.value.job_id == job.id
    assert (await queue.get_job(job.id)).data == {"a": 1}


async def test_saving_again_under_the_id_is_confirmed_or_raises_again(queue, servers):
    """The job is there and nothing is written; still "it exists" is said only once the replica has it."""
    with servers.replica_frozen():
        for _ in range(2):
            job = queue.create_job().set_id("again")
            with pytest.raises(NotReplicated, match="job again"):
                await job.save()
            assert job.id == "again"
    again = await queue.create_job().set_id("again").save()
    assert again.id is None
    assert servers.has_record(queue, "again")


async def test_another_process_learns_that_the_id_is_not_confirmed(queue, servers, make_queue):
    """WAIT on a connection that has written nothing would be answered at once."""
    other = make_queue(redis=servers.primary.url, wait_replicas=1, is_worker=False, **SHORT)
    await other.ready()
    with servers.replica_frozen():
        for each in (queue, other):
            with pytest.raises(NotReplicated, match="job both"):
                await each.create_job().set_id("both").save()


async def test_a_job_that_was_not_confirmed_hears_how_it_ended(queue, servers, make_queue):
    job = queue.create_job()
    heard: list[Any] = []
    job.on("succeeded", heard.append)
    with servers.replica_frozen(), pytest.raises(NotReplicated):
        await job.save()
    worker = make_queue(redis=servers.primary.url)
    worker.process(lambda _job: 7)
    assert await job.result(timeout=10_000) == 7
    await eventually(lambda: heard == [7])


async def test_many_saves_at_once_share_one_wait(patient_queue, servers):
    queue = patient_queue
    before = servers.calls("wait")
    await queue.enqueue()
    await asyncio.gather(*(queue.enqueue() for _ in range(400)))
    assert await queue.save_all([queue.create_job() for _ in range(1200)]) == {}
    assert servers.calls("wait") <= before + 4


async def test_save_all_returns_an_error_for_each_job_with_its_id(queue, servers):
    jobs = [queue.create_job() for _ in range(3)]
    with servers.replica_frozen():
        errors = await queue.save_all(jobs)
    assert [errors[job].job_id for job in jobs] == [job.id for job in jobs]
    assert all(type(error) is NotReplicated for error in errors.values())
    assert None not in {job.id for job in jobs}


async def test_a_job_that_cannot_be_added_is_refused_not_unconfirmed(queue, servers):
    await asyncio.to_thread(ask, servers.primary, "SET", queue.keys.id, "none")
    named, counted = queue.create_job().set_id("named"), queue.create_job()
    with servers.replica_frozen():
        errors = await queue.save_all([named, counted])
    assert type(errors[named]) is NotReplicated
    assert type(errors[counted]) is RedisRefused


async def test_nothing_is_asked_of_replicas_by_default(servers, make_queue):
    queue = make_queue(redis=servers.primary.url)
    await queue.ready()
    before = servers.calls("wait"), servers.calls("set")
    with servers.replica_frozen():
        job = await queue.enqueue()
        await job.remove()
    assert (servers.calls("wait"), servers.calls("set")) == before
    assert not ask(servers.primary, "EXISTS", queue.keys.written)


async def test_what_a_worker_records_waits_for_no_replica(servers, make_queue):
    """If a failover undoes it, the job runs again."""
    queue = make_queue(redis=servers.primary.url, wait_replicas=1)
    jobs = [await queue.enqueue() for _ in range(2)]
    before = servers.calls("wait")
    with servers.replica_frozen():

        @queue.process()
        async def handler(job: Job) -> str | None:
            await job.report_progress(1)
            await job.remember(fact=1)
            return job.id

        for job in jobs:
            assert await job.result(timeout=10_000) == job.id
    assert servers.calls("wait") == before


async def test_too_few_replicas_for_the_server_is_a_refusal(servers, queue):
    """``min-replicas-to-write``: nothing was written, so nothing is unknown, and WAIT keeps nobody waiting."""
    primary = servers.primary
    await asyncio.to_thread(ask, primary, "CONFIG", "SET", "min-replicas-to-write", 2)
    try:
        with pytest.raises(RedisUnavailable, match="NOREPLICAS") as raised:
            await queue.create_job().set_id("refused").save()
    finally:
        await asyncio.to_thread(ask, primary, "CONFIG", "SET", "min-replicas-to-write", 0)
    assert type(raised.value) is RedisUnavailable
    assert await queue.get_job("refused") is None


async def test_a_script_that_the_server_forgot_is_loaded(patient_queue, servers):
    queue = patient_queue
    await asyncio.to_thread(ask, servers.primary, "SCRIPT", "FLUSH")
    assert (await queue.enqueue()).id is not None


@pytest.mark.more_rights("a user of its own")
async def test_a_user_who_may_not_wait_is_refused_on_connecting(servers, make_queue):
    rules = ("on", ">secret", "~*", "&*", "+@all", "-wait")
    await asyncio.to_thread(ask, servers.primary, "ACL", "SETUSER", "nowait", *rules)
    url = servers.primary.url.replace("://", "://nowait:secret@")
    queue = make_queue(redis=url, wait_replicas=1)
    with pytest.raises(RedisRefused, match=r"NOPERM .*wait.*; wait_replicas needs it") as raised:
        await queue.connect()
    assert raised.value.code == "NOPERM"
    assert (await make_queue(redis=url).enqueue()).id is not None


@pytest.mark.more_rights("a user of its own")
async def test_a_right_that_is_taken_away_later_is_told_by_the_save(servers, make_queue):
    rules = ("on", ">secret", "~*", "&*", "+@all")
    await asyncio.to_thread(ask, servers.primary, "ACL", "SETUSER", "later", *rules)
    queue = make_queue(redis=servers.primary.url.replace("://", "://later:secret@"), wait_replicas=1)
    await queue.ready()
    await asyncio.to_thread(ask, servers.primary, "ACL", "SETUSER", "later", "-wait")
    with pytest.raises(NotReplicated, match=r"no replica confirmed it \(NOPERM"):
        await queue.enqueue()


async def test_a_close_does_not_wait_for_a_replica(servers, make_queue):
    queue = make_queue(redis=servers.primary.url, wait_replicas=1, redis_timeout=60_000)
    await queue.ready()
    with servers.replica_frozen():
        save = asyncio.ensure_future(queue.enqueue(id="closed"))
        await eventually(lambda: ask(servers.primary, "HEXISTS", queue.keys.jobs, "closed"))
        await asyncio.wait_for(queue.close(), 10)
        with pytest.raises(beeq.QueueClosed) as raised:
            await save
    assert "unknown" in raised.value.__notes__[0]


@pytest.mark.more_rights("another prefix")
async def test_the_service_names_the_job_that_was_not_confirmed(servers):
    async with QueueService(redis=servers.primary.url, prefix="waits", wait_replicas=1, **SHORT) as service:
        with servers.replica_frozen(), pytest.raises(NotReplicated) as raised:
            await service.add_webhook_job(WEBHOOK)
        assert raised.value.job_id == "hook"
        assert (await service.add_webhook_job(WEBHOOK)).id == "hook"


def test_the_blocking_queue_raises_it_too(servers, queue_name):
    with beeq.sync.Queue(queue_name, redis=servers.primary.url, wait_replicas=1, **SHORT) as queue:
        job = queue.enqueue({"a": 1})
        with servers.replica_frozen(), pytest.raises(NotReplicated) as raised:
            queue.remove_job(job.id)
        assert raised.value.job_id == job.id
        queue.destroy()


# What goes over the wire, and what may come back.


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with scripted_peer() as peer:
        yield peer


@pytest.fixture
async def pipeline(peer: Peer) -> AsyncIterator[Pipeline]:
    replicas = ReplicaWait(2, key="key", timeout_ms=5000)
    pipeline = Pipeline(peer.connector(), timeout_ms=5000, replicas=replicas)
    peer.answer = answers(b":2\r\n")
    await pipeline.connect()
    peer.commands.clear()
    yield pipeline
    await pipeline.close()


def answers(to_wait: bytes | None, to_save: bytes = b"*1\r\n$2\r\n17\r\n") -> Callable[[Any], bytes | None]:
    """Answer each command; None hangs up, and nothing leaves it open."""
    replies = {b"WAIT": to_wait, b"EVALSHA": to_save}
    return lambda command: replies.get(command[0], b"+OK\r\n")


def save(pipeline: Pipeline) -> asyncio.Future[tuple[Any, RedisError | None]]:
    """Ask for a save; return a future of what its caller gets."""
    reported: asyncio.Future[tuple[Any, RedisError | None]] = asyncio.get_running_loop().create_future()
    pipeline.defer(scripts.add_jobs, lambda: pack("EVALSHA"), lambda *end: reported.set_result(end))
    return reported


async def test_one_wait_goes_behind_a_batch_bounded_below_the_timeout(pipeline, peer):
    saves = [save(pipeline) for _ in range(3)]
    assert await asyncio.gather(*saves) == [([b"17"], None)] * 3
    behind = [[b"SET", b"key", b"", b"PX", b"60000"], [b"WAIT", b"2", b"2500"]]
    assert peer.commands == [*[[b"EVALSHA"]] * 3, *behind]


async def test_a_batch_without_a_save_does_not_wait(pipeline, peer):
    await asyncio.gather(pipeline.call("GET", "a"), pipeline.run(scripts.read_outcome, pack("EVALSHA", "b")))
    assert [command[0] for command in peer.commands] == [b"GET", b"EVALSHA"]


async def test_who_reads_beside_a_save_does_not_wait_for_replicas(pipeline, peer):
    peer.answer = answers(b"")
    reading = asyncio.ensure_future(
        pipeline.call("GET", "a")
    )  # begins in the turn in which the save is asked for
    saved = save(pipeline)
    assert await asyncio.wait_for(reading, 5) == b"OK"
    assert not saved.done()
    peer.say(b":2\r\n")
    assert await saved == ([b"17"], None)


@pytest.mark.parametrize(
    ("to_wait", "reason"),
    [
        (b":1\r\n", "1 of 2 replicas confirmed it in 2500 ms"),
        (b":0\r\n", "0 of 2 replicas confirmed it in 2500 ms"),
        (b"-ERR WAIT cannot be used with replica instances.\r\n", "no replica confirmed it (ERR WAIT cannot"),
        (b"-UNBLOCKED force unblock\r\n", "no replica confirmed it (UNBLOCKED force unblock)"),
        (None, "no replica confirmed it (Redis closed the connection)"),
    ],
    ids=["some", "none", "replica", "demoted", "gone"],
)
async def test_a_wait_that_fails_comes_with_the_reply_of_the_save(pipeline, peer, to_wait, reason):
    """It is not sent again: the job is there."""
    peer.answer = answers(to_wait)
    reply, error = await asyncio.wait_for(save(pipeline), 10)
    assert reply == [b"17"]
    assert isinstance(error, NotReplicated)
    assert str(error).startswith(reason)
    assert [command[0] for command in peer.commands].count(b"EVALSHA") == 1
    peer.answer = answers(b":2\r\n")
    assert await save(pipeline) == ([b"17"], None)


async def test_a_save_that_a_replica_refused_is_sent_again(pipeline, peer):
    def refuse_once(command: list[bytes]) -> bytes:
        if command[0] == b"WAIT":
            return b"-ERR WAIT cannot be used with replica instances.\r\n"
        peer.answer = answers(b":2\r\n") if command[0] == b"SET" else peer.answer
        return b"-READONLY replica\r\n"

    peer.answer = refuse_once
    assert await asyncio.wait_for(save(pipeline), 10) == ([b"17"], None)
    assert peer.dialled == 2


async def test_a_refused_save_does_not_wait_for_replicas(pipeline, peer):
    peer.answer = answers(b"", b"-OOM command not allowed\r\n")
    _reply, error = await asyncio.wait_for(save(pipeline), 10)
    assert isinstance(error, RedisRefused)
    assert error.code == "OOM"


async def test_a_silent_server_is_not_taken_for_a_slow_replica(peer):
    """Nothing is known of the save then, not even its id."""
    replicas = ReplicaWait(1, key="key", timeout_ms=100)
    pipeline = Pipeline(peer.connector(), timeout_ms=100, replicas=replicas)
    peer.answer = answers(b"", b"")
    reply, error = await asyncio.wait_for(save(pipeline), 10)
    assert reply is None
    assert isinstance(error, RedisUnavailable)
    assert not isinstance(error, NotReplicated)
    await pipeline.close()


@pytest.mark.parametrize("timeout_ms", [1, 2, 3])
def test_a_wait_is_never_for_ever(timeout_ms):
    assert ReplicaWait(1, key="key", timeout_ms=timeout_ms).wait.endswith(b"\r\n$1\r\n1\r\n")
