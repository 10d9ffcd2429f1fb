"""What a process of beeq's own is made of: its event loop, its name, its clock, the signals that stop it."""

import asyncio
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM)
#: Name of this process in the registries of all its queues; a fork gets its own.
_process_names: dict[int, str] = {}


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop, for ``asyncio.Runner``; None: asyncio's own choice."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def now_ms() -> int:
    """Return this machine's clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def process_name() -> str:
    """Return this process's name in ``beeq:workers``: ``<host>:<pid>:<8 random hexadecimal digits>``."""
    pid = os.getpid()
    if pid not in _process_names:
        _process_names.clear()
        _process_names[pid] = f"{socket.gethostname()}:{pid}:{secrets.token_hex(4)}"
    return _process_names[pid]


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
