"""Threads for handlers that are plain functions. Daemon threads, so a hung handler does not delay an exit.

``concurrent.futures`` joins its threads at interpreter exit, and a hung thread takes one of its workers for
ever; here the thread of a job that was given up goes on alone, and another thread takes the next job.
"""

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

#: The function, and the callback for its result.
_Call = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]


class ThreadPool:
    """Runs calls at once, in an idle thread or a new one. ``close`` ends the idle ones."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_ref = weakref.ref(loop)  # an idle thread must not keep the loop in memory
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait for a call, less the calls that wait for a thread
        self._started = 0
        self._closed = False

    def run(self, function: Callable[[], Any], on_end: Callable[[Any, BaseException | None], None]) -> None:
        """Call ``function`` in a thread, then ``on_end`` in the loop's with its result, its error or None."""
        call = function, on_end
        with self._lock:
            is_new_needed = self._idle <= 0
            if is_new_needed:
                self._started += 1
            else:
                self._idle -= 1
        if is_new_needed:
            threading.Thread(
                target=self._serve, args=(call,), name=f"beeq-handler-{self._started}", daemon=True
            ).start()
        else:
            self._calls.put(call)

    def _serve(self, call: _Call | None) -> None:
        while call is not None:
            self._perform(call)
            with self._lock:
                if self._closed:
                    return
                self._idle += 1
            del call  # and everything that its function holds
            call = self._calls.get()

    def _perform(self, call: _Call) -> None:
        function, on_end = call
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001 - a handler may raise anything
            error = raised
        loop = self._loop_ref()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the worker is gone
                loop.call_soon_threadsafe(on_end, result, error)

    def close(self) -> None:
        """End the idle threads; busy ones end after their call. Any thread may call this."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(max(0, idle)):
            self._calls.put(None)
