"""Fixtures of all tests: a real server, queues that are closed and audited, and Node's bee-queue.

* ``valkey``: the session's server. ``own_valkey``: one for this test, to stop and kill.
* ``redis``: an async client of the session's server; ``sync_redis``: a blocking one.
* ``queue_name``, ``make_queue``: queues of this test. They are closed at its end; an ``error`` event that
  the test neither listened for nor announced with ``expect_errors`` fails it.
* ``audit`` (autouse with the above): afterwards each queue's keys are consistent, unless the test is
  marked ``no_audit("reason")``; no asyncio task is left.
* ``eventually``, ``recorder``: waiting with a bound.
* ``node_modules``: where npm's bee-queue is. Without Node such tests skip, in CI they fail.

With ``-m fast`` the session's server is fakeredis, and tests that need more than it are left out: those
with a server of their own, those with Node, and those marked ``real_redis("what fakeredis does differently")``.

``pytest --ffmpeg=bundled`` hides the machine's ffmpeg; ``-m ffmpeg`` runs the tests that run one.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio

from tests.support import audit as audits
from tests.support.fake_server import FakeServer
from tests.support.ffmpeg import describe_ffmpeg, hide_ffmpeg
from tests.support.node import NodeMissing, install_bee_queue
from tests.support.server import Server
from tests.support.waiting import Recorder
from tests.support.waiting import eventually as wait_until

if TYPE_CHECKING:
    from beeq import Queue
    from beeq.protocol.keys import Keys


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the suite choose its ffmpeg."""
    parser.addoption(
        "--ffmpeg",
        choices=("found", "bundled"),
        default="found",
        help="the ffmpeg to test with: the one that beeq finds (on PATH, else the bundled), or the bundled",
    )


def pytest_report_header() -> str:
    """Say which ffmpeg it is: faults of one version are not another's."""
    return f"ffmpeg: {describe_ffmpeg()}"


def pytest_configure(config: pytest.Config) -> None:
    """Let interrupts through, and hide the machine's ffmpeg where the bundled one is to be tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in a shell's background, whose children would not hear the interrupts that tests send.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--ffmpeg") == "bundled":
        config.add_cleanup(hide_ffmpeg())


def is_on_fakeredis(config: pytest.Config) -> bool:
    """Return whether fakeredis stands in for the session's server."""
    return bool(config.getoption("markexpr") == "fast")


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs ffmpeg as external; leave out, on fakeredis, what needs more than it."""
    for item in items:
        if item.get_closest_marker("ffmpeg"):
            item.add_marker("external")
    if not is_on_fakeredis(config):
        return
    needs_more = [
        item
        for item in items
        if item.get_closest_marker("real_redis")
        or not {"own_valkey", "node_modules"}.isdisjoint(getattr(item, "fixturenames", ()))
    ]
    config.hook.pytest_deselected(items=needs_more)
    left_out = set(needs_more)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def valkey(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | FakeServer]:
    """The session's server: shared, so never stopped or flushed by a test. With ``-m fast`` it is fakeredis."""
    on_fakeredis = is_on_fakeredis(pytestconfig)
    with FakeServer() if on_fakeredis else Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for this test alone."""
    with Server(tmp_path_factory.mktemp("own-valkey")) as server:
        yield server


@pytest.fixture(name="redis")
async def redis_client(valkey: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """An async client of the session's server that decodes replies."""
    async with valkey.client(decode_responses=True) as client:
        yield client


@pytest.fixture
def sync_redis(valkey: Server) -> Iterator[redis.Redis]:
    """A blocking client of the session's server that decodes replies."""
    with valkey.sync_client() as client:
        yield client


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Let the loop of an asynchronous test end with no task of the test's in it."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield

    def left() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}

    try:
        await wait_until(lambda: not left(), 10)  # a cancelled task needs a turn of the loop to end
    except AssertionError:
        pytest.fail(f"tasks are left: {left()}")


@pytest.fixture
def audit(request: pytest.FixtureRequest) -> Iterator[list[Keys]]:
    """The queues of this test on the session's server: checked and deleted at its end."""
    queues: list[Keys] = []
    yield queues
    server: Server = request.getfixturevalue("valkey")
    with server.sync_client() as client:
        found = []
        for keys in dict.fromkeys(queues):
            found += [f"{keys.queue_name}: {fault}" for fault in audits.faults(client, keys)]
            audits.delete(client, keys)
    if found and request.node.get_closest_marker("no_audit") is None:
        pytest.fail("the queue is inconsistent: " + "; ".join(found[:20]))


@pytest.fixture
def queue_name(audit: list[Keys], valkey: Server) -> str:
    """A name that no other test uses."""
    from beeq.protocol.keys import Keys

    name = f"test-{uuid.uuid4().hex[:12]}"
    audit.append(Keys("bq", name))
    return name


@pytest.fixture
def expect_errors() -> list[BaseException]:
    """What the test's queues emitted as ``error``; asking for it says that there may be some."""
    return []


@pytest.fixture
async def make_queue(
    request: pytest.FixtureRequest, valkey: Server, queue_name: str, audit: list[Keys]
) -> AsyncIterator[Callable[..., Queue]]:
    """``make_queue(name=…, redis=…, **settings)``: a queue on the session's server, closed at the end."""
    from tests.support.queues import WatchedQueue

    made: list[WatchedQueue] = []
    is_expecting = "expect_errors" in request.fixturenames
    errors: list[BaseException] = request.getfixturevalue("expect_errors") if is_expecting else []

    def make(name: str | None = None, *, redis: Any = None, **settings: Any) -> Queue:
        target = valkey.url if redis is None else redis
        queue = WatchedQueue(name or queue_name, redis=target, errors=errors, **settings)
        if redis is None:
            audit.append(queue.keys)
        made.append(queue)
        return queue

    yield make
    for queue in reversed(made):
        await queue.end()
    if not is_expecting:
        unexpected = [error for error in errors if not any(queue.is_heard(error) for queue in made)]
        assert not unexpected, f"unexpected errors: {unexpected!r}"


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """``await eventually(predicate, within_s=10)``: its first truthy value."""
    return wait_until


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    """``record = recorder(queue, "succeeded", …)``; ``await record.until("succeeded", count=3)``."""
    return Recorder


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with npm's bee-queue, fetched into the checkout once."""
    try:
        return install_bee_queue()
    except NodeMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
