"""Runs a command's coroutine, opens its queues within the time a person waits, and explains how it failed."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from beeq import BeeqError, NotReplicated, Queue, RedisUnavailable
from beeq.errors import kind_and_text_of, text_of
from beeq.process import END_LIMIT_S, LastResort, end_process, loop_factory
from beeq.redis.urls import HashTagMissing, redact
from beeq_cli.console import complain
from beeq_cli.options import Common

T = TypeVar("T")

#: Exit codes; that of usage is click's own.
FAILURE = 1
USAGE = 2
CANNOT_CONNECT = 3
#: A command gives up connecting after this long. (Starting the embedded server has a limit of its own.)
CONNECT_TIMEOUT_S = 9.0


def explained(error: BaseException) -> tuple[str, int]:
    """Return an error's text, without passwords, and the exit code."""
    if isinstance(error, HashTagMissing):
        return str(error), USAGE
    if isinstance(error, RedisUnavailable) and not isinstance(error, NotReplicated):
        return f"cannot connect to Redis: {redact(text_of(error))}", CANNOT_CONNECT
    if isinstance(error, BeeqError):
        return redact(text_of(error)), FAILURE
    return redact(kind_and_text_of(error)), FAILURE


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end, on uvloop when it is there.

    Without Redis the process reports it and ends at once: a host name that does not resolve keeps a
    thread busy, and a normal end would wait for it. Any other hanging thread or task has ``END_LIMIT_S``
    from the end of ``main``.
    """

    async def guarded() -> T:
        try:
            return await main
        except RedisUnavailable as error:
            message, code = explained(error)
            complain(message)
            end_process(code)

    code, last_words = FAILURE, ""
    runner = asyncio.Runner(loop_factory=loop_factory())
    try:
        value = runner.run(guarded())
        code = value if isinstance(value, int) else 0
    except Exception as error:
        last_words, code = explained(error)
        raise
    finally:
        ending = LastResort(END_LIMIT_S, code=code, last_words=last_words)
        ending.begin()
        runner.close()
        ending.cancel()
    return value


def queues_to_look_into(names: Iterable[str], common: Common, **settings: Any) -> list[Queue]:
    """Return queues that load no scripts and raise no delayed jobs: they write nothing.

    They hear no events, unless the settings say so.
    """
    url = common.redis_url()
    off = ("is_worker", "get_events", "store_jobs", "ensure_scripts", "activate_delayed_jobs")
    settings = {**dict.fromkeys(off, False), **settings}
    return [Queue(name, redis=url, prefix=common.prefix, **settings) for name in names]


async def connect(queue: Queue) -> None:
    """Connect the queue within ``CONNECT_TIMEOUT_S``, or raise RedisUnavailable."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await queue.connect()
    except TimeoutError:
        raise RedisUnavailable("it does not answer") from None


@asynccontextmanager
async def opened(*queues: Queue) -> AsyncIterator[None]:
    """Connect the queues for the time of the block, then close them."""
    try:
        await asyncio.gather(*map(connect, queues))
        yield
    finally:
        await asyncio.gather(*(queue.close() for queue in queues))
