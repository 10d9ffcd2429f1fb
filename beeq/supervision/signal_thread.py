"""Receives signals in a thread, whatever the main thread does.

Python calls its handlers in the main thread, between two bytecode instructions. A main thread that waits in C
code executes none, and may not even be interrupted: of two signals that come at once, the kernel may deliver
both to another thread. The C-level signal handler writes the signal's number to the process's wakeup
descriptor, in any thread and without the interpreter's lock. Event loops use that, too: uvloop's own
descriptor gets what is read here; asyncio's has none, and is woken.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def signal_thread(on_signal: Callable[[int], object]) -> Iterator[socket.socket | None]:
    """Call ``on_signal`` with the number of each signal that Python handles, in a thread of its own.

    Enter it in the main thread's running loop; in another thread this does nothing. Yields the socket that
    the thread reads: if numbers stay in it, no thread runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    loop = asyncio.get_running_loop()
    hearing, writing = socket.socketpair()
    writing.settimeout(0)  # it must not block
    found = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    _in_use.add(writing.fileno())

    def listen() -> None:
        # Not ``recv`` alone: that would take the numbers out before it waits for the interpreter.
        while select.select([hearing], [], []) and (numbers := hearing.recv(4096)):
            for number in numbers:
                on_signal(number)
            with suppress(OSError, RuntimeError):  # the loop has ended
                if found == -1:
                    loop.call_soon_threadsafe(int)
                else:
                    os.write(found, numbers)
        hearing.close()

    threading.Thread(target=listen, name="beeq-signals", daemon=True).start()
    try:
        yield hearing
    finally:
        _in_use.discard(writing.fileno())
        newest = signal.set_wakeup_fd(found, warn_on_full_buffer=False)
        if newest != writing.fileno():  # set by the program meanwhile
            signal.set_wakeup_fd(newest, warn_on_full_buffer=False)
        writing.close()


#: The descriptors that this module has set.
_in_use: set[int] = set()


def _forget() -> None:
    """Drop the parent's descriptor: a fork's signals are its own."""
    with suppress(ValueError):  # not the main thread of the fork
        found = signal.set_wakeup_fd(-1)
        if found not in _in_use and found != -1:
            signal.set_wakeup_fd(found)
    _in_use.clear()


os.register_at_fork(after_in_child=_forget)
