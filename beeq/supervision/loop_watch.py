"""Logs that an event loop is blocked: for how long, where, and which jobs run.

The heartbeat's thread checks whether the loop answers. A suspended process or a sleeping machine does not
count as blocked: then the thread's checks are late, too, and no processor time has passed. If it has,
something held the interpreter all the while, a regular expression, say.

A blocked loop will go on; one that is over will not, and its heartbeats end, or the thread would keep its
jobs alive for ever. A loop is over when it is closed; when it does not run and the thread that ran it has
ended; and when it has not run for ``_LONGEST_PAUSE_S`` and three stall intervals. A loop that pauses for less
between two runs (``run_until_complete`` several times) is alive: its handlers go on with the next run. If a
loop runs again after that, its worker sends heartbeats again, and learns which of its jobs have other owners.
Loops are referenced weakly here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Generic, Protocol, TypeVar

from beeq.errors import escaped, shortened
from beeq.logs.records import log_event

T = TypeVar("T")
Owner = TypeVar("Owner")

#: How often the thread looks.
LOOK_S = 0.25
#: A loop that has not answered for so long is blocked.
BLOCKED_S = 1.0
#: A loop that has not run for so long, and for three stall intervals, counts as over.
_LONGEST_PAUSE_S = 10.0
_LONGEST_PAUSE_INTERVALS = 3
#: The most ids of a queue that the log names.
_MOST_IDS = 10
#: The longest id that is shown, in characters.
_LONGEST_ID = 200
#: The folders of code that is not the user's.
_LIBRARY_FOLDERS = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]), "<frozen")


class Watched(Protocol):
    """A worker on a queue in a loop. All methods are called in another thread."""

    @property
    def queue_name(self) -> str:
        """The queue's name."""

    @property
    def stall_interval_s(self) -> float:
        """How long its jobs may go without a sign of life."""

    def running_ids(self) -> list[str]:
        """Return the ids of the jobs that run."""

    def loop_is_over(self) -> None:
        """The loop is over."""


class InLoop(Generic[Owner]):
    """Calls an object in its loop from another thread, and references both weakly."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner_ref, self._loop_ref = weakref.ref(owner), weakref.ref(loop)

    def call(self, method: Callable[[Owner, T], object], argument: T) -> None:
        """Call ``method`` with the owner and the argument, soon; or never, if the loop has ended."""
        owner, loop = self._owner_ref(), self._loop_ref()
        if owner is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed
                loop.call_soon_threadsafe(method, owner, argument)


class LoopWatch:
    """One event loop's watch, for as long as any queue works in it.

    Args:
        loop: the running one; this is its thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_ref = weakref.ref(loop)
        self._thread = threading.current_thread()
        self._ran_at_s = time.monotonic()
        #: What works in it.
        self.watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._has_answered = True
        self._looked_at_s, self._cpu_s = time.monotonic(), time.process_time()
        self._answered_at_s = 0.0
        self._blocked_s = 0.0
        self._is_reported = False
        self._found = ""  # where it was blocked, and which jobs ran

    def _answer(self) -> None:
        self._answered_at_s = time.monotonic()
        self._has_answered = True

    def enter(self, watched: Watched) -> None:
        """Watch the loop for this worker, too; the loop runs in this thread now."""
        self.watched.add(watched)
        self._thread = threading.current_thread()
        self._ran_at_s = time.monotonic()

    def is_over(self, now_s: float) -> bool:
        """Return whether the loop counts as over."""
        loop = self._loop_ref()
        if loop is None or loop.is_closed():
            return True
        if loop.is_running():
            self._ran_at_s = now_s
            return False
        if not self._thread.is_alive():
            return True
        interval_s = max((each.stall_interval_s for each in self.watched), default=0.0)
        return now_s - self._ran_at_s > max(_LONGEST_PAUSE_S, _LONGEST_PAUSE_INTERVALS * interval_s)

    def look(self, now_s: float, cpu_s: float) -> None:
        """Judge the loop by the monotonic clock and by the processor time that the process has used."""
        step_s, used_s = now_s - self._looked_at_s, cpu_s - self._cpu_s
        until_answered_s = self._answered_at_s - self._looked_at_s
        self._looked_at_s, self._cpu_s = now_s, cpu_s
        # After a late check, count only the time in which the process ran.
        counted_s = max(min(step_s, 2 * LOOK_S), min(step_s, used_s))
        loop = self._loop_ref()
        if loop is None or not loop.is_running():
            self._has_answered, self._blocked_s, self._is_reported = True, 0.0, False
            return
        has_answered = self._has_answered
        if not has_answered or counted_s >= BLOCKED_S:
            self._blocked_s += counted_s
        elif self._is_reported:
            self._blocked_s += min(counted_s, max(until_answered_s, 0))
        if self._blocked_s >= BLOCKED_S and not self._is_reported:
            self._is_reported = True
            self._found = f"at {self._where()}; jobs that run: {self._jobs()}"
            how = "was blocked for {:.1f} s" if has_answered else "is blocked, for {:.1f} s by now"
            _warn(f"the event loop {how.format(self._blocked_s)}, {self._found}", self._blocked_s)
        elif self._is_reported and has_answered:
            _warn(f"the event loop was blocked for {self._blocked_s:.1f} s, {self._found}", self._blocked_s)
        if not has_answered:
            return
        self._blocked_s, self._is_reported, self._has_answered = 0.0, False, False
        with contextlib.suppress(RuntimeError):  # closed just now
            loop.call_soon_threadsafe(self._answer)

    def _where(self) -> str:
        """Return the innermost line of the user's code in the loop's thread, else just the innermost."""
        innermost = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - there is no other way
        frame: FrameType | None = innermost
        while frame is not None and _is_library(frame.f_code.co_filename):
            frame = frame.f_back
        found = frame or innermost
        if found is None:
            return "an unknown line"
        return f"{found.f_code.co_filename}:{found.f_lineno} ({found.f_code.co_name})"

    def _jobs(self) -> str:
        texts = []
        for each in self.watched:
            ids = each.running_ids()
            if ids:
                texts.append(f"{named(ids)} of queue {each.queue_name}")
        return "; ".join(texts) or "none"


def named(ids: Sequence[str]) -> str:
    """Return the ids as a log has them: the first of them, and how many more."""
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    shown = (escaped(shortened(each, _LONGEST_ID)) for each in ids[:_MOST_IDS])
    return f"{', '.join(shown)}{more}"


def _warn(text: str, blocked_s: float) -> None:
    """Log it in another thread: the blocking code may hold a lock of the log, and heartbeats go on."""
    log = functools.partial(log_event, logging.WARNING, text, duration_ms=round(blocked_s * 1000))
    threading.Thread(target=log, name="beeq-log", daemon=True).start()


def _is_library(path: str) -> bool:
    return path.startswith(_LIBRARY_FOLDERS) or "site-packages" in path


class _Loops:
    """The loops of this process in which queues work."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWatch] = (
            weakref.WeakKeyDictionary()
        )
        self.lock = threading.Lock()


_loops = _Loops()


def watch_loop(watched: Watched) -> None:
    """Watch the running loop for this worker."""
    loop = asyncio.get_running_loop()
    with _loops.lock:
        watch = _loops.watches.get(loop)
        if watch is None:
            watch = _loops.watches[loop] = LoopWatch(loop)
        watch.enter(watched)


def leave_loop(watched: Watched) -> None:
    """Stop watching the running loop for this worker."""
    loop = asyncio.get_running_loop()
    with _loops.lock:
        watch = _loops.watches.get(loop)
        if watch is not None:
            watch.watched.discard(watched)
            if not watch.watched:
                del _loops.watches[loop]


def is_watched(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether any queue works in the loop."""
    return loop in _loops.watches


def look_at_loops() -> None:
    """Look at each loop; called in the heartbeat's thread, every ``LOOK_S``."""
    over: list[Watched] = []
    now_s = time.monotonic()
    with _loops.lock:
        for loop, watch in list(_loops.watches.items()):
            if watch.is_over(now_s):
                over += watch.watched
                del _loops.watches[loop]
            else:
                watch.look(now_s, time.process_time())
    for each in over:
        each.loop_is_over()


# A fork has its parent's loops in memory, and runs none of them.
os.register_at_fork(after_in_child=_loops.forget)
