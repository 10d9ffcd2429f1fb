"""Clients with parts that belong to their event loop: heartbeats, which have a thread of their own, go on.

A healthy job of several stall intervals runs once. What another thread cannot use is used in the queue's own
loop, and the log says so once.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from redis import asyncio as redis
from redis.asyncio.sentinel import Sentinel
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from beeq import Queue
from beeq.redis.dialling.apart import Bound, copy_of
from tests.support.server import Server
from tests.support.topologies import NAME
from tests.support.topologies import Sentinel as SentinelServer
from tests.support.waiting import eventually

STALL_INTERVAL_MS = 300
#: Of those, in a job's time.
INTERVALS = 6


class AskingProvider(CredentialProvider):
    """Asks a Redis for its password, over a client that belongs to the loop that used it first."""

    def __init__(self, vault: redis.Redis) -> None:
        self._vault = vault
        self.threads: list[int] = []

    async def get_credentials_async(self) -> Any:
        self.threads.append(threading.get_ident())
        return "default", str(await self._vault.get("password"))


class FutureProvider(CredentialProvider):
    """Returns a future of its loop, rather than a coroutine."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.threads: list[int] = []

    def get_credentials_async(self) -> Any:
        self.threads.append(threading.get_ident())
        found: asyncio.Future[Any] = self._loop.create_future()
        self._loop.call_later(0.01, found.set_result, ("default", ""))
        return found


class BoundConnection(redis.Connection):
    """Waits for something of its loop before it connects."""

    gate: asyncio.Lock

    async def connect(self) -> None:
        async with self.gate:
            await asyncio.sleep(0.01)
            await super().connect()


class OwnPool(redis.ConnectionPool):
    """A pool of somebody else's."""


@pytest.fixture
def server(own_valkey: Server) -> Server:
    return own_valkey


@pytest.fixture
async def vault(server: Server) -> Any:
    async with server.client(decode_responses=True) as client:
        await client.set("password", "")
        yield client


async def runs_once(queue: Queue, caplog: Any) -> list[str]:
    """Run a long job while stall checks are made, and return what the log says of the client."""
    runs: list[str] = []

    @queue.process(concurrency=5)
    async def handler(job: Any) -> str:
        runs.append(job.id)
        await asyncio.sleep(INTERVALS * STALL_INTERVAL_MS / 1000)
        return "done"

    errors: list[BaseException] = []
    queue.on("error", errors.append)
    job = await queue.enqueue({})
    assert await job.result(20_000) == "done"
    assert (runs, errors) == ([job.id], [])
    heartbeat = next(duty for duty in queue.worker_health().duties if duty.name == "heartbeat")
    assert (heartbeat.state, heartbeat.restarts) == ("running", 0)
    return [text for text in caplog.messages if "event loop" in text]


def is_healthy(queue: Queue) -> bool:
    return queue.worker_health().is_healthy


async def test_a_providers_own_client_is_used_in_its_loop(server, make_queue, vault, caplog):
    provider = AskingProvider(vault)
    queue = make_queue(redis=server.client(credential_provider=provider), stall_interval=STALL_INTERVAL_MS)
    said = await runs_once(queue, caplog)
    assert set(provider.threads) == {threading.get_ident()}
    assert len(said) == 1
    assert "AskingProvider" in said[0]


async def test_a_provider_that_returns_futures_is_asked_in_its_loop(server, make_queue, caplog):
    provider = FutureProvider()
    queue = make_queue(redis=server.client(credential_provider=provider), stall_interval=STALL_INTERVAL_MS)
    assert len(await runs_once(queue, caplog)) == 1
    assert set(provider.threads) == {threading.get_ident()}


async def test_a_connection_class_of_ones_own_stays_in_its_loop(server, make_queue, caplog):
    BoundConnection.gate = asyncio.Lock()
    pool = redis.ConnectionPool(BoundConnection, host="127.0.0.1", port=server.port)
    queue = make_queue(redis=redis.Redis(connection_pool=pool), stall_interval=STALL_INTERVAL_MS)
    said = await runs_once(queue, caplog)
    assert len(said) == 1
    assert "BoundConnection" in said[0]
    await queue.close()
    await eventually(lambda: not [each for each in threading.enumerate() if each.name == "beeq-heartbeat"])


async def test_a_callback_of_ones_own_stays_in_its_loop(server, make_queue, caplog):
    gate = asyncio.Lock()

    async def on_connect(connection: Any) -> None:
        async with gate:
            await asyncio.sleep(0.01)
            await connection.on_connect()

    client = server.client(redis_connect_func=on_connect)
    queue = make_queue(redis=client, stall_interval=STALL_INTERVAL_MS)
    assert "redis_connect_func" in (await runs_once(queue, caplog))[0]


async def test_each_client_is_spoken_of_once(server, make_queue, caplog):
    client = redis.Redis(connection_pool=OwnPool(host="127.0.0.1", port=server.port))
    for name in ("first", "second"):
        queue = make_queue(name, redis=client)
        queue.process(lambda _job: None)
        await queue.connect()
        await eventually(partial(is_healthy, queue))
    assert len([text for text in caplog.messages if "OwnPool" in text]) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda server: server.client(),
        lambda server: redis.Redis.from_url(server.url),
        lambda server: redis.Redis(
            connection_pool=redis.BlockingConnectionPool(host="127.0.0.1", port=server.port, timeout=5)
        ),
        lambda server: server.client(
            credential_provider=UsernamePasswordCredentialProvider("default", "nothing")
        ),
        lambda server: server.client(ssl=True, ssl_cert_reqs="none", decode_responses=True),
    ],
    ids=["client", "from_url", "BlockingConnectionPool", "fixed credentials", "TLS"],
)
async def test_what_is_made_of_values_works_in_any_thread(server, make):
    copy = copy_of(
        make(server).connection_pool, limit_s=1, sentinel_limit_s=1, owner=asyncio.get_running_loop()
    )
    assert copy.asked_elsewhere == ""


async def test_a_loop_that_is_blocked_leaves_a_provider_s_jobs_alone(server, make_queue, vault):
    """The heartbeat has its connection, and asks nobody for credentials."""
    queue = make_queue(
        redis=server.client(credential_provider=AskingProvider(vault)), stall_interval=STALL_INTERVAL_MS
    )
    stalled: list[str] = []
    checks = threading.Event()

    def check() -> None:
        async def check_often() -> None:
            async with Queue(queue.name, redis=server.url, stall_interval=STALL_INTERVAL_MS) as looking:
                looking.on("stalled", stalled.append)
                while not checks.is_set():
                    await looking.check_stalled_jobs()
                    await asyncio.sleep(0.05)

        asyncio.run(check_often())

    looking = threading.Thread(target=check)
    looking.start()

    @queue.process
    async def handler(_job: Any) -> None:
        await asyncio.sleep(STALL_INTERVAL_MS / 1000)  # let the heartbeat connect
        threading.Event().wait(INTERVALS * STALL_INTERVAL_MS / 1000)

    try:
        await (await queue.enqueue({})).result(20_000)
    finally:
        checks.set()
        await asyncio.to_thread(looking.join)
    assert stalled == []


@pytest.mark.external
class TestSentinel:
    """A client that asks Sentinels for the master."""

    @pytest.fixture
    def sentinel(self, server, tmp_path):
        with SentinelServer(tmp_path, server) as sentinel:
            yield sentinel

    async def test_a_job_of_a_sentinel_s_client_runs_once(self, sentinel, make_queue, caplog):
        asking = Sentinel([("127.0.0.1", sentinel.port)])
        master = asking.master_for(NAME)
        assert await master.ping()  # its Sentinels' connections are this loop's
        queue = make_queue(redis=master, stall_interval=STALL_INTERVAL_MS)
        assert await runs_once(queue, caplog) == []
        await master.aclose()
        await asking.aclose()

    async def test_another_loop_works_with_the_same_client(self, sentinel, queue_name):
        asking = Sentinel([("127.0.0.1", sentinel.port)])
        master = asking.master_for(NAME)
        assert await master.ping()

        async def save() -> str:
            async with Queue(queue_name, redis=master) as queue:
                return str((await queue.enqueue({})).id)

        assert await asyncio.to_thread(asyncio.run, save()) == "1"
        assert await master.ping()
        await master.aclose()
        await asking.aclose()

    async def test_a_sentinel_of_ones_own_kind_stays_in_its_loop(self, sentinel, make_queue, caplog):
        class OwnSentinel(Sentinel):
            pass

        asking = OwnSentinel([("127.0.0.1", sentinel.port)])
        master = asking.master_for(NAME)
        with pytest.raises(Bound, match="OwnSentinel"):
            copy_of(master.connection_pool, limit_s=1, sentinel_limit_s=1)
        queue = make_queue(redis=master, stall_interval=STALL_INTERVAL_MS)
        assert len(await runs_once(queue, caplog)) == 1
        await queue.close()
        await master.aclose()
        await asking.aclose()
