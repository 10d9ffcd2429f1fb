"""Runs a command's coroutine, and opens its queues within the time a person waits."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from beeq import Queue, RedisUnavailable
from beeq.process import loop_factory
from beeq_cli.console import complain
from beeq_cli.failures import explained
from beeq_cli.options import Common

T = TypeVar("T")

#: Nobody waits longer for a connection. (Starting the embedded server has a limit of its own.)
CONNECT_TIMEOUT_S = 9.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end, on uvloop when it is there.

    Without Redis the process says so and ends here and now: a name that does not resolve keeps a
    thread, which a normal end would wait for.
    """

    async def guarded() -> T:
        try:
            return await main
        except RedisUnavailable as error:
            message, code = explained(error)
            complain(message)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(guarded())


def queues_to_look_into(names: Iterable[str], common: Common, **settings: Any) -> list[Queue]:
    """Return queues that hear, load and raise nothing by themselves: looking writes nothing."""
    url = common.redis_url()
    quiet = {
        "is_worker": False,
        "get_events": False,
        "store_jobs": False,
        "ensure_scripts": False,
        "activate_delayed_jobs": False,
    }
    return [Queue(name, redis=url, prefix=common.prefix, **quiet, **settings) for name in names]


async def connect(queue: Queue) -> None:
    """Connect the queue in time, or not at all.

    Raises:
        RedisUnavailable: Redis is not there, does not want us, or is silent.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await queue.connect()
    except TimeoutError:
        raise RedisUnavailable("it does not answer") from None


@asynccontextmanager
async def opened(*queues: Queue) -> AsyncIterator[None]:
    """Connect the queues, and close them in the end."""
    try:
        await asyncio.gather(*map(connect, queues))
        yield
    finally:
        await asyncio.gather(*(queue.close() for queue in queues))
