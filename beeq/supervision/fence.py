"""Runs third-party code in a task and an empty context of its own, for a bounded time.

A credential provider, a connection class, a callback of a client may raise anything (``CancelledError`` and
``KeyboardInterrupt`` included), ignore its cancellation, or never return. A copy of the caller's context
would keep the caller's objects alive as long as what is made here, a transport, say.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from beeq.errors import kind_and_text_of

T = TypeVar("T")

#: Tasks that are no longer awaited; the loop itself holds no reference to them.
_left: set[asyncio.Task[Any]] = set()


def is_ended_by(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Return whether this ends the task from outside, and was not raised by its code."""
    kind = type(error)  # an exception's own ``__class__`` may raise anything
    if issubclass(kind, GeneratorExit):
        try:
            return asyncio.current_task() is not task
        except RuntimeError:  # no loop runs: the interpreter is about to end
            return True
    return issubclass(kind, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def limit(bound: asyncio.Timeout, limit_s: float | None) -> None:
    """Let ``async with asyncio.timeout(None) as bound`` end in so many seconds.

    A loop keeps even a cancelled timer, and the context in which it was made, until its time: so it is made
    in an empty context.
    """
    if limit_s is not None:
        Context().run(bound.reschedule, asyncio.get_running_loop().time() + limit_s)


async def without_context(call: Coroutine[Any, Any, T]) -> T:
    """Await ``call`` in an empty context: what a library opens for later calls must not keep the caller's."""
    return await asyncio.get_running_loop().create_task(call, context=Context())


async def fenced(
    call: Callable[[], Coroutine[Any, Any, T]],
    *,
    limit_s: float,
    on_late: Callable[[T], object] = lambda _result: None,
) -> T:
    """Call, and await for a bounded time; a later return value goes to ``on_late``.

    Raises:
        TimeoutError: it has not ended in time; it was cancelled, and is not waited for.
        RuntimeError: it raised something else than an ``Exception``; the text says what.
        Exception: what it raised.
    """
    task = asyncio.get_running_loop().create_task(_outcome_of(call), context=Context())
    try:
        await asyncio.wait([task], timeout=limit_s)
    except BaseException:  # this wait was cancelled, perhaps just as the call had ended
        _leave(task, on_late)
        raise
    if not task.done():
        _leave(task, on_late)
        raise TimeoutError
    if task.cancelled():
        raise RuntimeError("it was cancelled")
    result, error = task.result()
    if isinstance(error, Exception):
        raise error
    if error is not None:
        raise RuntimeError(f"it raised {kind_and_text_of(error)}")
    return result  # type: ignore[return-value]  # there was no error


async def _outcome_of(call: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T | None, BaseException | None]:
    """Return what the call returns, or its error: some exceptions, raised by a task, would end the loop."""
    task = asyncio.current_task()
    try:
        return await call(), None
    except BaseException as error:
        if is_ended_by(error, task):
            raise
        return None, error


def _leave(task: asyncio.Task[Any], on_late: Callable[[Any], object]) -> None:
    _left.add(task)
    task.cancel()

    def ended(_task: asyncio.Task[Any]) -> None:
        _left.discard(task)
        if not task.cancelled():
            result, error = task.result()
            if error is None:
                on_late(result)

    task.add_done_callback(ended, context=Context())
