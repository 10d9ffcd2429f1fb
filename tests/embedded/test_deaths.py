"""The embedded server and its keeper are killed under queues that use it: they go on by themselves.

And a process that leaves while it still joins the server leaves no share behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from beeq import QueueClosed, RedisUnavailable, embedded
from beeq.embedded import keeper
from beeq.redis.connector import Connector
from beeq.redis.resp import RespProtocol, pack
from tests.embedded.conftest import is_quiet
from tests.embedded.test_embedded import is_alive, keeper_pid, server_pid
from tests.support.locks import is_free
from tests.support.waiting import eventually, pause

EAGER = {"initial_redis_failure_retry_delay": 20}
READY = "Ready to accept connections"


@pytest.fixture
async def make_dialer(folder: Path) -> AsyncIterator[Callable[[], Connector]]:
    """Make dialers of the folder's server, which are closed at the end."""
    made: list[Connector] = []

    def make() -> Connector:
        made.append(Connector(f"embedded:{folder}", timeout_ms=5000, slot_key="slot"))
        return made[-1]

    yield make
    for connector in made:
        await connector.close()


async def kill(folder: Path, *which: str) -> None:
    """Kill the folder's keeper, its server, or both, and see them dead; a keeper takes its server along."""
    with redis.Redis(unix_socket_path=str(folder / keeper.SOCKET)) as client:
        pids = {"keeper": keeper_pid(client), "server": server_pid(client)}
    for name in which:
        os.kill(pids[name], signal.SIGKILL)
    doomed = list(pids.values()) if "keeper" in which else [pids["server"]]
    await eventually(lambda: not any(map(is_alive, doomed)))
    await pause(0.01)  # a turn of the loop, for those whose connection it was


def is_answering(folder: Path) -> bool:
    return keeper.is_answering(str(folder / keeper.SOCKET), timeout_s=1)


async def ping(wire: RespProtocol) -> object:
    """Return the reply to a PING, and hang up."""
    answered = asyncio.get_running_loop().create_future()
    wire.ask([pack("PING")], lambda replies, error: answered.set_result(error or replies[0]), timeout_s=5)
    reply = await answered
    wire.close()
    await pause(0)
    return reply


KEEPER_KILLED = [("keeper", "server"), ("keeper",)]


@pytest.mark.parametrize("killed", [*KEEPER_KILLED, ("server",)], ids="-and-".join)
async def test_an_enqueue_after_a_kill_succeeds_and_nothing_is_lost(
    folder, make_queue, expect_errors, killed
):
    producer = make_queue(redis=f"embedded:{folder}", is_worker=False)
    before = await producer.enqueue({})
    await kill(folder, *killed)
    after = await producer.enqueue({})
    assert {job.id for job in await producer.get_jobs("waiting")} == {before.id, after.id}


@pytest.mark.parametrize("killed", KEEPER_KILLED, ids="-and-".join)
async def test_an_idle_worker_alone_restarts_its_server_and_works_on(
    folder, make_queue, expect_errors, killed
):
    worker = make_queue(redis=f"embedded:{folder}", **EAGER)
    worker.process(lambda job: job.data)
    await worker.ready()
    await kill(folder, *killed)
    await eventually(lambda: is_answering(folder))  # nobody but the worker is there
    job = await worker.enqueue("worked")
    assert await job.result(timeout=10_000) == "worked"


@pytest.mark.parametrize("killed", KEEPER_KILLED, ids="-and-".join)
async def test_a_job_that_runs_during_a_kill_ends_as_usual(folder, make_queue, expect_errors, killed):
    worker = make_queue(redis=f"embedded:{folder}", **EAGER)
    started, end = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    @worker.process
    async def run(job):
        runs.append(job.id)
        started.set()
        await end.wait()
        return "worked"

    job = await worker.enqueue({})
    await asyncio.wait_for(started.wait(), 30)
    await kill(folder, *killed)
    end.set()
    assert await job.result(timeout=10_000) == "worked"
    assert runs == [job.id]


async def test_the_heartbeat_finds_the_server_that_was_brought_back(folder, make_queue, expect_errors):
    worker = make_queue(redis=f"embedded:{folder}", stall_interval=200, **EAGER)
    worker.process(lambda job: job.data)
    await worker.ready()
    await kill(folder, "keeper", "server")
    await eventually(lambda: is_answering(folder))
    with redis.Redis(unix_socket_path=str(folder / keeper.SOCKET)) as client:
        client.delete(worker.keys.workers)
        await eventually(lambda: client.zcard(worker.keys.workers) == 1)


# Dialling.


@pytest.mark.parametrize("name", ["short", "l" * 230])
async def test_dials_of_many_loops_at_once_bring_back_one_server(tmp_path, name):
    folder = tmp_path / name
    everybody_dialled = threading.Barrier(4, timeout=20)
    everybody_may = threading.Barrier(4, timeout=20)
    replies: list[object] = []

    async def dial_before_and_after() -> None:
        connector = Connector(f"embedded:{folder}", timeout_ms=5000, slot_key="slot")
        try:
            replies.append(await ping(await connector.connect()))
            everybody_dialled.wait()
            everybody_may.wait()
            wires = await asyncio.gather(*(connector.connect() for _ in range(5)))
            replies.extend([await ping(wire) for wire in wires])
        finally:
            await connector.close()

    threads = [threading.Thread(target=asyncio.run, args=(dial_before_and_after(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(everybody_dialled.wait)
    share = embedded.join(folder)
    try:
        with redis.Redis(unix_socket_path=share.address) as client:
            pids = [keeper_pid(client), server_pid(client)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, pids)))
        await asyncio.to_thread(everybody_may.wait)
        for thread in threads:
            await asyncio.to_thread(thread.join, 20)
        assert replies == [b"PONG"] * 18
        assert (folder / keeper.LOG).read_text().count(READY) == 1
    finally:
        share.close()
    await eventually(lambda: is_quiet(folder))


async def test_a_server_brought_back_ends_with_its_last_user(folder, make_dialer):
    connector = make_dialer()
    await ping(await connector.connect())
    await kill(folder, "keeper", "server")
    await ping(await connector.connect())
    assert is_answering(folder)
    await connector.close()
    await eventually(lambda: is_quiet(folder))


async def test_a_dial_has_a_share_of_the_folder_that_stands_there_now(folder, make_dialer):
    connector = make_dialer()
    await ping(await connector.connect())
    await kill(folder, "keeper", "server")
    shutil.rmtree(folder)
    assert await ping(await connector.connect()) == b"PONG"
    assert not is_free(folder / keeper.USERS_LOCK)


async def test_while_the_server_lives_a_dial_only_connects(folder, make_dialer, monkeypatch):
    connector = make_dialer()
    await ping(await connector.connect())
    monkeypatch.setattr(embedded, "join", None)
    for wire in await asyncio.gather(*(connector.connect() for _ in range(5))):
        assert await ping(wire) == b"PONG"


async def test_a_server_that_cannot_return_fails_all_dials_at_once(folder, make_dialer, monkeypatch):
    connector = make_dialer()
    await ping(await connector.connect())
    await kill(folder, "keeper", "server")
    attempts: list[Path] = []

    def fail(folder: Path) -> None:
        attempts.append(folder)
        raise RedisUnavailable("did not start: the reason")

    monkeypatch.setattr(embedded, "join", fail)
    errors = await asyncio.gather(*(connector.connect() for _ in range(5)), return_exceptions=True)
    assert [str(error) for error in errors] == ["did not start: the reason"] * 5
    assert attempts == [folder]
    monkeypatch.undo()
    assert await ping(await connector.connect()) == b"PONG"


# Leaving.


class Held:
    """``embedded.join`` that has its share and does not return yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._join = embedded.join
        self.calls = 0
        self.has_joined = threading.Event()
        self.go_on = threading.Event()
        monkeypatch.setattr(embedded, "join", self)

    def __call__(self, folder: Path) -> embedded.EmbeddedServer:
        self.calls += 1
        share = self._join(folder)
        self.has_joined.set()
        assert self.go_on.wait(20)
        return share


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Let the next ``embedded.join`` wait for ``go_on``."""
    held = Held(monkeypatch)
    yield held
    held.go_on.set()


async def test_a_queue_closed_while_it_joins_leaves_no_share_behind(folder, make_queue, held):
    queue = make_queue(redis=f"embedded:{folder}")
    connecting = asyncio.ensure_future(queue.connect())
    await eventually(held.has_joined.is_set)
    await queue.close()
    assert connecting.done()
    assert not is_free(folder / keeper.USERS_LOCK)
    held.go_on.set()
    await eventually(lambda: is_quiet(folder))


async def test_a_queue_closed_while_it_restarts_its_server_lets_it_go(
    folder, make_queue, held, expect_errors
):
    held.go_on.set()
    queue = make_queue(redis=f"embedded:{folder}", is_worker=False)
    await queue.connect()
    await kill(folder, "keeper", "server")
    held.go_on.clear()
    held.has_joined.clear()
    saving = asyncio.ensure_future(queue.enqueue({}))
    await eventually(held.has_joined.is_set)
    await queue.close()
    assert isinstance(saving.exception(), QueueClosed)
    held.go_on.set()
    await eventually(lambda: is_quiet(folder))


async def test_a_join_survives_its_cancelled_dial_and_serves_the_next(folder, make_dialer, held):
    connector = make_dialer()
    first = asyncio.ensure_future(connector.connect())
    await eventually(held.has_joined.is_set)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.ensure_future(connector.connect())
    held.go_on.set()
    assert await ping(await second) == b"PONG"
    assert held.calls == 1


async def test_a_dialer_closed_while_it_joins_dials_no_more(folder, make_dialer, held, eventually):
    connector = make_dialer()
    first = asyncio.ensure_future(connector.connect())
    await eventually(held.has_joined.is_set)
    await connector.close()
    held.go_on.set()
    with pytest.raises(RedisUnavailable, match="was closed"):
        await first
    with pytest.raises(QueueClosed):
        await connector.connect()
    await eventually(lambda: is_quiet(folder))
