"""Closing in time: how long each part of it may take, and waits that end even if a part hangs.

A close returns at most ``CLOSE_GRACE_S`` after its timeout: the parts that follow the timeout add up to it.
What has not ended by then is cancelled, and not awaited. (This bounds ``close()`` itself. A blocked loop
closes nothing, and asyncio and the interpreter wait for hanging threads when they end.)

The closing task may be cancelled meanwhile, more than once: by a caller whose own time is over, or with all
tasks of the loop, as ``asyncio.run`` does at its end. The jobs go back all the same (``Ending``): the bounds
stay, and CancelledError is raised once the close is done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

from beeq.settings import Duration, in_ms

#: bee-queue's default for ``close``.
CLOSE_TIMEOUT_MS = 5000

#: A cancelled handler cleans up before its job may run elsewhere …
CLEAN_UP_S = 1.0
#: … and until so long after the timeout its job goes back to the queue.
HAND_BACK_S = 1.5
#: By then the pump, the heartbeat and the other duties, threads and child processes have ended. They have at
#: least the difference; where no job had to go back, idle child processes have time to end by themselves.
END_DUTIES_S = 2.0
#: Callers that wait for the last jobs that ended here get their results;
TELL_S = 0.2
#: listeners are cancelled, and connections ended; then the client that was passed in is left, and Sentinels.
HANG_UP_S = 0.4
LEAVE_S = 0.4

#: The shortest timeout of a close, since 0 means the default: jobs go back now.
AT_ONCE_MS = 1

#: When a task that was cancelled goes on, it is cancelled again.
_CANCEL_AGAIN_S = 0.5

CLOSE_GRACE_S = END_DUTIES_S + TELL_S + HANG_UP_S + LEAVE_S

#: Tasks that are no longer awaited; the loop itself holds no reference to them.
_left: set[asyncio.Future[Any]] = set()


def close_timeout_ms(timeout: Duration | None) -> int:
    """Return the timeout of a close in ms; None, 0 and negatives mean bee-queue's default.

    Raises:
        ValueError: text that is not a duration.
    """
    timeout_ms = in_ms(timeout)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int) or timeout_ms <= 0:
        return CLOSE_TIMEOUT_MS
    return timeout_ms


async def within(limit_s: float, *awaitables: Awaitable[object]) -> bool:
    """Await these concurrently; return whether all ended in time. The others are cancelled.

    Unlike ``asyncio.timeout`` this does not wait for the end of what it cancels. Raises the first error.
    """
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    if not tasks:
        return True
    try:
        await asyncio.wait(tasks, timeout=limit_s)
    finally:
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
            _left.add(task)
            task.add_done_callback(_forget)
    errors = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for error in filter(None, errors):
        raise error
    return not late


class Ending:
    """Takes a close through its steps even if its task is cancelled; ``over`` then raises CancelledError."""

    def __init__(self) -> None:
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the task was cancelled in one of the steps so far."""
        return self._cancelled is not None

    async def step(self, limit_s: float, begin: Callable[[], Iterable[Awaitable[object]]]) -> bool:
        """Await what ``begin`` returns, for at most ``limit_s``.

        If the task is cancelled, ``begin`` is called again: what it returned may have been cancelled, too.
        """
        loop = asyncio.get_running_loop()
        over_at_s = loop.time() + limit_s
        while True:
            try:
                return await within(over_at_s - loop.time(), *begin())
            except asyncio.CancelledError as error:
                self._cancelled = self._cancelled or error

    async def cut_short(self, awaitable: Awaitable[object]) -> None:
        """Await it; stop waiting if the task is cancelled."""
        try:
            await awaitable
        except asyncio.CancelledError as error:
            self._cancelled = self._cancelled or error

    def over(self) -> None:
        """Raise CancelledError if the task was cancelled meanwhile."""
        if self._cancelled is not None:
            raise self._cancelled


async def ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait until the tasks have ended, in any way."""
    if tasks:
        await asyncio.wait(tasks)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks until they have ended, in any way.

    A cancellation may be lost: ``asyncio.gather`` then raises the error of a call that has just failed, and a
    loop that handles such errors goes on.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it


def _forget(task: asyncio.Future[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
