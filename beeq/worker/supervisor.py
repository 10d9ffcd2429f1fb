"""Several worker processes: a parent that runs no jobs, and children that do.

The parent replaces children that die, and passes signals on; a child ends when its parent does. The child
learns both from one pipe: a byte says how urgently to stop, and the end of the pipe that the parent is gone.
A child in which too many handlers hang ends by itself, for threads cannot be stopped in any other way.
Children ignore SIGINT: Ctrl-C reaches parent and children alike, and must count once.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import FrameType
from typing import Any

from beeq.errors import escaped
from beeq.logs.records import log_event
from beeq.process import signal_name

logger = logging.getLogger("beeq")

#: A child that ended sooner is replaced no sooner than this after its start.
_RESPAWN_S = 1.0
#: How long after its time a child that does not end is killed: its own last resort comes before, unless a
#: handler holds the interpreter.
_GRACE_S = 8.0
#: So many signals kill the children at once.
_KILLING_SIGNALS = 3
#: The exit code of a process in which too many handlers hang, once its other jobs have ended or gone back.
HANDLERS_HANG = 4
#: The exit code of a burst that has left jobs in a paused queue.
QUEUE_PAUSED = 5
#: The longest ready message of a child, in bytes: below PIPE_BUF, so that messages do not mix.
_LONGEST_WORD = 4000
_STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Lifeline:
    """A child's ends of two pipes: ``stop_fd`` says when to stop, ``ready_fd`` takes its ready message.

    ``place`` counts from 0: living children have different ones, and a replacement has that of its
    predecessor.
    """

    stop_fd: int
    ready_fd: int
    place: int = 0

    def report_ready(self, line: str = "") -> None:
        """Report to the parent that the child works, with a line for its ``on_started``, maybe cut."""
        text = escaped(line).encode("utf-8", "replace")[:_LONGEST_WORD]
        os.write(self.ready_fd, b"%d %b\n" % (os.getpid(), text))


@dataclass(slots=True)
class _Child:
    pid: int
    stop_fd: int
    started_at: float
    place: int
    is_ready: bool = False


class ProcessSupervisor:
    """Keeps ``count`` children running until SIGINT or SIGTERM comes.

    Args:
        count: how many.
        is_burst: a child that ends well is not replaced; one whose handlers hang is.
        shutdown_timeout_s: how long the children may take to end.
        hopeless_codes: exit codes of a child that could not begin. If the first child ends with one, no
            other is started, and the code is the parent's own.
        on_started: called once, when all children work, with the line that the last of them has reported.
        on_end: called with the place of each child that has ended, and whether another one is to come.
    """

    def __init__(
        self,
        count: int,
        *,
        is_burst: bool,
        shutdown_timeout_s: float,
        hopeless_codes: Collection[int],
        on_started: Callable[[str], None],
        on_end: Callable[[int, bool], None] = lambda _place, _is_awaited: None,
    ) -> None:
        self._count = count
        self._is_burst = is_burst
        self._shutdown_timeout_s = shutdown_timeout_s
        self._hopeless_codes = hopeless_codes
        self._on_started = on_started
        self._on_end = on_end
        self._earlier_handlers: dict[int, Any] = {}
        self._earlier_wakeup_fd = -1
        self._children: dict[int, _Child] = {}
        self._done: set[int] = set()  # places of children that are not replaced
        self._respawns: list[float] = []  # when to start a child; monotonic
        self._signals: list[int] = []  # that have come
        self._sent_urgency = 0
        self._was_ready = False  # any child ever was
        self._has_reported = False
        self._kill_at: float | None = None
        self._code = 0
        self._burst_code = 0  # of children that are done
        #: Whether a child had to be ended by force.
        self.was_forced = False
        self._wakeup_fd, self._wakeup_end = os.pipe()
        self._ready_fd, self._ready_end = os.pipe()
        self._words = b""  # unfinished lines from that pipe

    def run(self) -> Lifeline | int:
        """Return the exit code when all children have ended; in each child return its lifeline at once."""
        for fd in (self._wakeup_fd, self._wakeup_end, self._ready_fd):
            os.set_blocking(fd, False)
        self._earlier_wakeup_fd = signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for number in (*_STOPS, signal.SIGCHLD):
            self._earlier_handlers[number] = signal.signal(number, self._on_signal)
        # One first: an error that all of them would have is logged once.
        self._respawns = [time.monotonic()]
        while True:
            self._reap()
            self._send_urgency()
            lifeline = self._spawn_due()
            if lifeline is not None:
                return lifeline
            if not self._children and (self._is_stopping() or not self._respawns):
                self._restore()
                return self._code or self._burst_code
            self._wait()

    @property
    def has_worked(self) -> bool:
        """Whether all children have ever worked at once."""
        return self._has_reported

    def _restore(self) -> None:
        """Restore the process's signal handlers, and close the pipes."""
        signal.set_wakeup_fd(self._earlier_wakeup_fd)
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        for fd in (self._wakeup_fd, self._wakeup_end, self._ready_fd, self._ready_end):
            os.close(fd)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOPS:
            self._signals.append(number)

    def _is_stopping(self) -> bool:
        return bool(self._signals) or self._code != 0

    def _wait(self) -> None:
        """Wait for a signal, a child that is ready, or the next respawn or kill."""
        due = [*self._respawns, *([] if self._kill_at is None else [self._kill_at])]
        timeout_s = max(min(due) - time.monotonic(), 0) if due else None
        readable, _, _ = select.select([self._wakeup_fd, self._ready_fd], [], [], timeout_s)
        if self._wakeup_fd in readable:
            os.read(self._wakeup_fd, 4096)
        if self._ready_fd in readable:
            *words, self._words = (self._words + os.read(self._ready_fd, 4096)).split(b"\n")
            for pid, _, line in (word.partition(b" ") for word in words):
                self._child_ready(int(pid), line.decode("utf-8", "replace"))

    def _child_ready(self, pid: int, line: str) -> None:
        if pid in self._children:
            self._children[pid].is_ready = True
        if not self._was_ready:
            self._was_ready = True
            self._respawns += [time.monotonic()] * (self._count - 1)
        ready = sum(child.is_ready for child in self._children.values())
        if ready == self._count and not self._has_reported:
            self._has_reported = True
            self._on_started(line)
        elif self._has_reported and pid in self._children:
            log_event(logging.INFO, f"worker process {pid} works now")

    # Children.

    def _spawn_due(self) -> Lifeline | None:
        """Start the children that are due; in a child, return its lifeline."""
        now = time.monotonic()
        if self._is_stopping():
            self._respawns = []
        while self._respawns and min(self._respawns) <= now:
            self._respawns.remove(min(self._respawns))
            stop_fd, stop_end = os.pipe()
            taken = {child.place for child in self._children.values()} | self._done
            place = next(each for each in range(self._count) if each not in taken)
            pid = os.fork()
            if pid == 0:
                return self._become_child(stop_fd, stop_end, place)
            os.close(stop_fd)
            self._children[pid] = _Child(pid, stop_end, now, place)
        return None

    def _become_child(self, stop_fd: int, stop_end: int, place: int) -> Lifeline:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to pass on
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        siblings = [child.stop_fd for child in self._children.values()]
        for fd in (stop_end, self._wakeup_fd, self._wakeup_end, self._ready_fd, *siblings):
            os.close(fd)
        return Lifeline(stop_fd, self._ready_end, place)

    def _reap(self) -> None:
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                del self._children[pid]
                os.close(child.stop_fd)
                awaited = len(self._respawns)
                self._died(child, os.waitstatus_to_exitcode(status))
                if len(self._respawns) == awaited:
                    self._done.add(child.place)
                self._on_end(child.place, len(self._respawns) > awaited)

    def _died(self, child: _Child, code: int) -> None:
        if self._is_stopping():
            self.was_forced |= code not in {0, HANDLERS_HANG, QUEUE_PAUSED}  # the reason is logged already
            return
        if self._is_burst and code in {0, QUEUE_PAUSED}:
            self._burst_code = max(self._burst_code, code)
            return
        if not self._was_ready and code in self._hopeless_codes:
            self._code = code  # the child has logged why
            return
        if code == HANDLERS_HANG:  # nothing is broken: no wait
            logger.warning("too many handlers hung in worker process %d; starting another one", child.pid)
            self._respawns.append(time.monotonic())
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        logger.error("worker process %d %s; starting another one", child.pid, how)
        self._respawns.append(max(time.monotonic(), child.started_at + _RESPAWN_S))

    # The end.

    def _send_urgency(self) -> None:
        """Write the urgency to the children's pipes when it has grown; kill those that do not end in time."""
        urgency = max(len(self._signals), 1 if self._code else 0)
        if urgency > self._sent_urgency:
            if self._signals:
                self._log_signal(signal_name(self._signals[-1]), urgency)
            self._sent_urgency = urgency
            self._kill_at = time.monotonic() + (_GRACE_S if urgency < _KILLING_SIGNALS else 0)
            self._kill_at += self._shutdown_timeout_s if urgency == 1 else 0
            for child in self._children.values():
                try:
                    os.write(child.stop_fd, bytes([min(urgency, 255)]))
                except BrokenPipeError:
                    continue  # it is ending anyway
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            for child in self._children.values():
                logger.error(
                    "worker process %d did not stop in time and was killed;"
                    " its jobs are left to a stall check",
                    child.pid,
                )
                os.kill(child.pid, signal.SIGKILL)

    def _log_signal(self, name: str, urgency: int) -> None:
        count = f"{len(self._children)} worker process{'' if len(self._children) == 1 else 'es'}"
        if urgency == 1:
            allowed = f"{count} may take up to {self._shutdown_timeout_s:g} s to end"
            log_event(logging.INFO, f"{name}: no more jobs are taken; {allowed}")
        elif urgency < _KILLING_SIGNALS:
            log_event(logging.INFO, f"{name}, the second signal: jobs that run go back to the queue")
        else:
            log_event(logging.WARNING, f"{name}, the third signal: {count} killed; their jobs stall")
