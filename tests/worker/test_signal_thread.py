"""``signal_thread``: signals are heard while the main thread waits in C code, and nobody else's hearing ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from beeq.supervision.signal_thread import signal_thread

PATIENCE_S = 20


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request) -> Callable[[Any], None]:
    def run(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return run


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    """Python handles the signal: only then is it written."""
    found = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, found)


def test_signals_are_heard_while_the_main_thread_waits_in_c(run):
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)

    def unlock(number: int) -> None:
        heard.put(number)
        libc.pthread_mutex_unlock(mutex)  # nothing else ends the wait

    async def main() -> None:
        with signal_thread(unlock):
            libc.pthread_mutex_lock(mutex)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            libc.pthread_mutex_lock(mutex)

    run(main())
    assert heard.get(timeout=PATIENCE_S) == signal.SIGUSR1


def test_a_loop_hears_of_signals_as_before(run):
    async def main() -> None:
        come = asyncio.Event()
        with signal_thread(lambda _number: None):
            signal.signal(signal.SIGUSR1, lambda *_: come.set())
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            await asyncio.wait_for(come.wait(), PATIENCE_S)

    run(main())


def test_a_handler_of_the_loop_is_called_as_before(run):
    async def main() -> None:
        come, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, come.set)
        for _ in range(2):
            with signal_thread(lambda _number: None):
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.wait_for(come.wait(), PATIENCE_S)
            come.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(come.wait(), PATIENCE_S)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads
def test_a_copys_signals_are_not_heard(run):
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def main() -> None:
        with signal_thread(heard.put):
            pid = os.fork()
            if not pid:
                os.kill(os.getpid(), signal.SIGUSR1)
                os._exit(0)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
            os.kill(os.getpid(), signal.SIGUSR1)
            assert heard.get(timeout=PATIENCE_S) == signal.SIGUSR1

    run(main())
    assert heard.empty()


def test_the_thread_ends_and_the_descriptor_is_as_it_was(run):
    before = set(threading.enumerate())

    async def main() -> None:
        found = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(found, warn_on_full_buffer=False)
        with signal_thread(lambda _number: None):
            pass
        assert signal.set_wakeup_fd(found, warn_on_full_buffer=False) == found

    run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
