"""Clients with code of somebody else's in them: what dialling raises is "Redis is away", and nothing ends by it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import valkey.asyncio
from redis import asyncio as redis
from redis.credentials import CredentialProvider

from beeq import Queue, RedisUnavailable
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.supervision import error_reports
from tests.support.hostile import KINDS
from tests.support.server import Server
from tests.support.waiting import eventually

#: The duties of a worker that also hears of its jobs.
DUTIES = {
    "pump",
    "blocking fetch",
    "heartbeat",
    "stall check",
    "delayed activator",
    "subscriber",
    "pause watch",
    "overdue watch",
}
SECRET = "s3cret-of-mine"


class Provider(CredentialProvider):
    """Gives credentials, or does ``instead``."""

    def __init__(self) -> None:
        self.instead: Any = None
        self.asked = 0
        self.threads: set[int] = set()

    async def get_credentials_async(self) -> Any:
        self.asked += 1
        self.threads.add(threading.get_ident())
        if self.instead is not None:
            return await self.instead()
        return "default", ""

    def raises(self, kind: type[BaseException], text: str = "no credentials for now") -> None:
        async def raise_it() -> None:
            raise kind(text)

        self.instead = raise_it


class OddConnection(redis.Connection):
    """A connection class of somebody else's, with errors of its own."""

    error: type[BaseException] | None = None

    async def connect(self) -> None:
        if OddConnection.error is not None:
            raise OddConnection.error("odd")
        await super().connect()


@pytest.fixture(autouse=True)
def said_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an error that comes again be said after a moment, not after seconds."""
    monkeypatch.setattr(error_reports, "FIRST_REST_S", 0.5)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def server(own_valkey: Server) -> Server:
    return own_valkey


async def cut(server: Server) -> None:
    """Have all connections made again."""
    async with server.client() as client:
        for kind in ("normal", "pubsub"):
            await client.client_kill_filter(_type=kind, skipme=True)


def states(queue: Queue) -> dict[str, str]:
    return {duty.name: duty.state for duty in queue.worker_health().duties}


async def working(make_queue: Any, client: Any, **settings: Any) -> tuple[Queue, list[BaseException]]:
    """Return a queue whose duties all work, and the errors that it will report."""
    settings = {"stall_interval": 600, "initial_redis_failure_retry_delay": 50, **settings}
    queue = make_queue(redis=client, **settings)
    errors: list[BaseException] = []
    queue.on("error", errors.append)
    queue.on("job succeeded", lambda *_: None)

    @queue.process
    async def handler(job: Any) -> Any:
        return job.data

    await queue.connect()
    job = await queue.enqueue("before")
    assert await job.result(10_000) == "before"
    return queue, errors


def count(errors: list[Any]) -> int:
    """Return how many errors there were; the same one again is said now and then, with how many more."""
    return sum(1 + error.repeated for error in errors)


async def works_again(queue: Queue) -> None:
    """Wait until every duty takes turns, none of them begun again."""

    async def is_saved() -> bool:
        try:
            job = await queue.enqueue("after")
        except RedisUnavailable:
            return False
        return bool(await job.result(10_000) == "after")

    await eventually(is_saved)
    since_ms = time.time_ns() // 1_000_000
    assert await is_saved()
    resting = ("blocking fetch", "subscriber")
    await eventually(
        lambda: all(
            duty.last_turn_ms >= since_ms for duty in queue.worker_health().duties if duty.name not in resting
        )
    )
    raised = asyncio.Event()
    queue.on("raised jobs", lambda _count: raised.set())
    await queue.enqueue("late", delay_until=time.time_ns() // 1_000_000 + 200)
    await asyncio.wait_for(raised.wait(), 10)
    duties = queue.worker_health().duties
    assert {duty.name for duty in duties} == DUTIES
    assert {duty.name: (duty.state, duty.restarts, duty.error) for duty in duties} == dict.fromkeys(
        DUTIES, ("running", 0, "")
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_no_duty_ends_by_what_a_provider_raises(server, make_queue, provider, kind):
    queue, errors = await working(make_queue, server.client(credential_provider=provider))
    provider.raises(kind)
    asked = provider.asked
    await cut(server)
    await eventually(lambda: provider.asked >= asked + 8 and count(errors) >= 5)
    assert {type(error) for error in errors} <= {RedisUnavailable}
    assert any(kind.__name__ in str(error) for error in errors)
    provider.instead = None
    await works_again(queue)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_no_duty_ends_by_what_a_connection_class_raises(server, make_queue, monkeypatch, kind):
    pool = redis.ConnectionPool(OddConnection, host="127.0.0.1", port=server.port)
    queue, errors = await working(make_queue, redis.Redis(connection_pool=pool))
    monkeypatch.setattr(OddConnection, "error", kind)
    await cut(server)
    await eventually(lambda: count(errors) >= 8)
    assert {type(error) for error in errors} <= {RedisUnavailable}
    monkeypatch.setattr(OddConnection, "error", None)
    await works_again(queue)


async def test_a_client_of_valkey_py_works_and_survives_a_restart(server, make_queue):
    """Its errors are not redis-py's."""
    queue, errors = await working(make_queue, valkey.asyncio.Valkey(host="127.0.0.1", port=server.port))
    server.stop()
    await eventually(lambda: count(errors) >= 8)
    assert {type(error) for error in errors} <= {RedisUnavailable}
    server.start()
    await works_again(queue)


async def test_a_provider_that_hangs_has_the_time_of_one_call(server, make_queue, provider):
    client = server.client(credential_provider=provider)
    queue, errors = await working(make_queue, client, redis_timeout=300, stall_interval=3000)
    provider.instead = asyncio.Event().wait
    await cut(server)
    await eventually(lambda: count([error for error in errors if "in time" in str(error)]) >= 4)
    provider.instead = None
    await works_again(queue)


async def test_a_provider_that_is_deaf_is_left_behind(server, make_queue, provider):
    """It ignores that it is cancelled."""
    client = server.client(credential_provider=provider)
    queue, _errors = await working(make_queue, client, redis_timeout=300, stall_interval=3000)
    is_over = asyncio.Event()

    async def deaf() -> Any:
        while not is_over.is_set():
            try:
                await is_over.wait()
            except asyncio.CancelledError:
                continue
        return "default", ""

    provider.instead = deaf
    await cut(server)
    try:
        with pytest.raises(RedisUnavailable, match="in time"):
            await asyncio.wait_for(queue.enqueue({}), 10)
        provider.instead = None
        await works_again(queue)
    finally:
        is_over.set()  # what comes of it now is hung up
    async with server.client() as client:

        async def holds_no_more() -> bool:
            """A worker has five connections and maybe a probe, and this is one."""
            return len(await client.client_list()) <= 7

        await eventually(holds_no_more)


async def test_a_provider_that_blocks_the_loop_is_logged(server, make_queue, provider, caplog):
    queue, _errors = await working(make_queue, server.client(credential_provider=provider))

    async def block() -> Any:
        provider.instead = None
        time.sleep(1.6)  # noqa: ASYNC251 - that is the fault
        return "default", ""

    provider.instead = block
    await cut(server)
    await eventually(lambda: any("blocked" in text and "(block)" in text for text in caplog.messages))
    await works_again(queue)


async def test_a_save_says_why_and_names_no_secret(server, make_queue, provider):
    queue = make_queue(redis=server.client(credential_provider=provider))
    provider.raises(LookupError, f"no answer of https://me:{SECRET}@vault.example/")
    with pytest.raises(RedisUnavailable, match=r"LookupError: no answer of https://\*\*\*@vault") as raised:
        await queue.enqueue({})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        f"login failed: password={SECRET}",
        f"login failed: {{'user': 'me', 'password': '{SECRET}', 'x': 1}}",
        f'the token: "{SECRET}" has expired',
        f"GET /?user=me&api_key={SECRET}&x=1",
        f"https://me:{SECRET}@vault.example/ is away",
    ],
)
async def test_what_a_text_names_as_a_secret_is_left_out(server, provider, text):
    provider.raises(LookupError, text)
    connector = Connector(server.client(credential_provider=provider), timeout_ms=500, slot_key="k")
    with pytest.raises(RedisUnavailable, match="LookupError") as raised:
        await Connection(connector, timeout_ms=500).call("PING")
    assert SECRET not in str(raised.value)
    assert "***" in str(raised.value)


async def test_an_odd_error_does_not_repeat_the_password(server, monkeypatch):
    class Telling(redis.Connection):
        async def connect(self) -> None:
            raise LookupError(f"cannot log in with {self.password}")

    pool = redis.ConnectionPool(Telling, host="127.0.0.1", port=server.port, password=SECRET)
    connector = Connector(redis.Redis(connection_pool=pool), timeout_ms=500, slot_key="k")
    with pytest.raises(RedisUnavailable, match=r"cannot log in with \*\*\*"):
        await Connection(connector, timeout_ms=500).call("PING")
