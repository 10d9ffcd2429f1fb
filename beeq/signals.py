"""The signals that ask a process to stop, for as long as a queue works."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(stop: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run ``stop()`` at each SIGINT and SIGTERM, in the running loop; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()

    def caught() -> None:
        task = loop.create_task(stop())
        stopping.add(task)
        task.add_done_callback(stopping.discard)

    for number in _STOPS:
        loop.add_signal_handler(number, caught)
    try:
        yield
    finally:
        for number in _STOPS:
            loop.remove_signal_handler(number)
