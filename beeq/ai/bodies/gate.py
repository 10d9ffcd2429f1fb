"""Limits how many bytes are parsed in threads at once: parsing takes many times the memory of its input."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from beeq.process import call_in_thread

#: Below this, parsing is faster than starting a thread.
SHORT_BYTES = 64 * 1024
_Result = TypeVar("_Result")


class ByteGate:
    """Calls functions in threads, in their order, for as many bytes at once as ``most_bytes``.

    A larger one is called alone. Used on one event loop.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._free_bytes = most_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def call(self, size_bytes: int, function: Callable[[], _Result]) -> _Result:
        """Return what ``function`` returns, which reads so many bytes; at once, here, if they are few."""
        if size_bytes < SHORT_BYTES:
            return function()
        size_bytes = min(size_bytes, self._most_bytes)
        await self._enter(size_bytes)
        # Not by a name: an error in it would keep this call and its function until a garbage collection.
        return await self._begun(size_bytes, function)

    def _begun(self, size_bytes: int, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        loop = asyncio.get_running_loop()

        def call() -> _Result:
            try:
                return function()
            finally:
                # By the thread, not by its waiter: a cancelled attempt's thread goes on reading.
                with suppress(RuntimeError):  # the loop has closed
                    loop.call_soon_threadsafe(self._leave, size_bytes)

        try:
            return call_in_thread(call)
        except BaseException:  # no thread could be started
            self._leave(size_bytes)
            raise

    async def _enter(self, size_bytes: int) -> None:
        if not self._waiting and size_bytes <= self._free_bytes:
            self._free_bytes -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()  # those behind may be smaller
            else:
                self._leave(size_bytes)  # its turn came together with the cancellation
            raise

    def _leave(self, size_bytes: int) -> None:
        self._free_bytes += size_bytes
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if size_bytes > self._free_bytes:
                return
            self._waiting.popleft()
            self._free_bytes -= size_bytes
            turn.set_result(None)
