"""Fixtures of all tests: a real server, queues that are closed and audited, and Node's bee-queue.

* ``valkey``: the session's server. ``own_valkey``: one for this test, to stop and kill.
* ``each_server``: one of each kind that can be had (Redis 6.2, …) for this test, to stop and kill.
* ``redis``: an async client of the session's server; ``sync_redis``: a blocking one.
* ``queue_name``, ``make_queue``: queues of this test. They are closed at its end; an ``error`` event that
  the test neither listened for nor announced with ``expect_errors`` fails it.
* ``audit`` (autouse with the above): afterwards each queue's keys are consistent, unless the test is
  marked ``no_audit("reason")``; no asyncio task is left, and no key in another database of the session's server.
* ``eventually``, ``recorder``: waiting with a bound.
* ``warm_start``: starts ``beeq`` commands without their imports.
* ``node_modules``: where npm's bee-queue is. Without Node such tests skip, in CI they fail.

With ``-m fast`` the session's server is fakeredis, and tests that need more than it are left out: those
with a server of their own, those with Node, and those marked ``real_redis("what fakeredis does differently")``.

``pytest --server=redis-6.2`` runs the tests on another server than the default's, one of ``binaries.KINDS``.
``pytest --acl`` runs them with a Redis user who has exactly the rights that README.md lists; tests that need others,
or a user of their own, are left out: those with Node, and those marked ``more_rights("what for")``.
``pytest --ffmpeg=bundled`` hides the machine's ffmpeg; ``-m ffmpeg`` runs the tests that run one.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
import redis.utils

from benchmarks.binaries import DEFAULT, KINDS, ServerMissing
from tests.support import audit as audits
from tests.support.acl import UserOfUrls
from tests.support.fake_server import FakeServer
from tests.support.ffmpeg import describe_ffmpeg, hide_ffmpeg
from tests.support.node import NodeMissing, install_arena, install_bee_queue, install_payload
from tests.support.server import Server
from tests.support.waiting import Recorder
from tests.support.waiting import eventually as wait_until
from tests.support.warm_start import WarmStart

if TYPE_CHECKING:
    from beeq import Queue
    from beeq.protocol.keys import Keys


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the suite choose its server, its Redis user and its ffmpeg."""
    parser.addoption("--server", choices=KINDS, default=DEFAULT, help="the server to test with")
    parser.addoption("--acl", action="store_true", help="beeq's user has the rights that the README lists")
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
    """Let interrupts through and bytecode be kept; choose the Redis user; hide the machine's ffmpeg if the other is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in a shell's background, whose children would not hear the interrupts that tests send.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    UserOfUrls.is_limited = config.getoption("--acl")
    if config.getoption("--ffmpeg") == "bundled":
        config.add_cleanup(hide_ffmpeg())
    # To compile the tests takes as long as a quarter of them; and each process that a test starts would compile beeq.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # redis-py reads its package's metadata again for each connection, which takes longer than to connect.
    redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)
    sys.dont_write_bytecode = False


@pytest.hookimpl(optionalhook=True)  # unknown with ``-p no:xdist``
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run twice as many test processes as there are cores, and one: most tests wait, for a moment or for a program.

    Fast ones do not, and each process more collects all tests again.
    """
    cores = os.cpu_count() or 1
    return cores if config.option.markexpr == "fast" else 2 * cores + 1


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Let each test process begin with another part of the tests, so that none compiles what another one compiles."""
    report = yield
    if isinstance(collector, pytest.Dir) and collector.path == Path(__file__).parent:
        report.result = _rotated(report.result)
    return report


def _rotated(collectors: list[pytest.Collector]) -> list[pytest.Collector]:
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    if not worker.startswith("gw") or not count.isdecimal():
        return collectors
    sizes = [_size(collector.path) for collector in collectors]
    before = sum(sizes) * int(worker[2:]) / int(count)
    first = next((n for n in range(len(sizes)) if sum(sizes[: n + 1]) > before), 0)
    return collectors[first:] + collectors[:first]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*.py")))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect no garbage meanwhile: little of what is made then is any, and it would cost a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Exempt the tests themselves, half a million objects, from each garbage collection of a test."""
    gc.collect()
    gc.freeze()


#: The fixtures of tests with Node.
_NODES = {"node_modules", "arena_modules"}


def is_on_fakeredis(config: pytest.Config) -> bool:
    """Return whether fakeredis replaces the session's server."""
    return bool(config.getoption("markexpr") == "fast")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over the files that have no fast test: to import them all takes as long as a quarter of the tests."""
    if not is_on_fakeredis(config) or collection_path.suffix != ".py":
        return None
    return "mark.fast" not in collection_path.read_text(encoding="utf-8") or None


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs ffmpeg as external; leave out, on fakeredis, what needs more than it."""
    # Test processes find the tests in different orders; they must have them in the same.
    items.sort(key=lambda item: str(item.path))
    for item in items:
        if item.get_closest_marker("ffmpeg"):
            item.add_marker("external")
    if config.getoption("--acl"):
        more = [each for each in items if each.get_closest_marker("more_rights") or _has_node(each)]
        _leave_out(config, items, more)
    if not is_on_fakeredis(config):
        return
    needs_more = [
        item
        for item in items
        if item.get_closest_marker("real_redis")
        or not {"own_valkey", "each_server", *_NODES}.isdisjoint(getattr(item, "fixturenames", ()))
    ]
    _leave_out(config, items, needs_more)


def _has_node(item: pytest.Item) -> bool:
    return not _NODES.isdisjoint(getattr(item, "fixturenames", ()))


def _leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=unwanted)
    left_out = set(unwanted)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def valkey(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | FakeServer]:
    """The session's server: shared, so never stopped or flushed by a test. With ``-m fast`` it is fakeredis."""
    on_fakeredis = is_on_fakeredis(pytestconfig)
    kind = pytestconfig.getoption("server")
    with FakeServer() if on_fakeredis else Server(tmp_path_factory.mktemp("valkey"), kind=kind) as server:
        yield server


@pytest.fixture(scope="session")
def warm_start() -> Iterator[WarmStart]:
    """What starts commands without their imports, which are most of a short one's CPU time."""
    starter = WarmStart()
    yield starter
    starter.close()


@pytest.fixture
def own_valkey(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for this test alone."""
    kind = pytestconfig.getoption("server")
    with Server(tmp_path_factory.mktemp("own-valkey"), kind=kind) as server:
        yield server


#: The newest and the oldest in every run.
_OFTEN = (DEFAULT, "redis-6.2")


@pytest.fixture(
    params=[kind if kind in _OFTEN else pytest.param(kind, marks=pytest.mark.external) for kind in KINDS]
)
def each_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each kind in its turn, for this test alone; in CI there must be all."""
    try:
        server = Server(tmp_path_factory.mktemp(request.param), kind=request.param)
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with server:
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


@pytest.fixture(scope="session")
def _inspector(valkey: Server) -> Iterator[redis.Redis]:
    with valkey.sync_client() as client:
        yield client


@pytest.fixture(autouse=True)
def no_other_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no test that uses the session's server leave keys in another database of it: a server with several is another.

    There a queue checks each event that it hears (``own_events.py``), and passes on none of those that later tests
    make up. fakeredis, which does not list its databases, is always taken for such a server.
    """
    is_asked = "valkey" in request.fixturenames and not is_on_fakeredis(request.config)
    inspector: redis.Redis | None = request.getfixturevalue("_inspector") if is_asked else None
    yield  # until all other fixtures of the test have ended
    if inspector is not None:
        left = [int(name.removeprefix("db")) for name in inspector.info("keyspace") if name != "db0"]
        for number in left:  # else all later tests fail, too
            with request.getfixturevalue("valkey").sync_client(db=number) as client:
                client.flushdb()
        assert not left, f"the test left keys in another database: {left}"


@pytest.fixture
def other_database(valkey: Server) -> Iterator[int]:
    """Another database of the session's server, emptied in the end: ask for it before the queues that use it."""
    yield 3
    with valkey.sync_client(db=3) as client:
        client.flushdb()


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
    return _fetched(install_bee_queue)


@pytest.fixture(scope="session")
def payload_modules() -> Path:
    """The folder with npm's Payload, likewise."""
    return _fetched(install_payload)


@pytest.fixture(scope="session")
def arena_modules() -> Path:
    """The folder with npm's Arena and bee-queue, likewise."""
    return _fetched(install_arena)


def _fetched(install: Callable[[], Path]) -> Path:
    try:
        return install()
    except NodeMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
