"""The parts of a beeq process: its version, its event loop, its name, its clock, the signals that stop it."""

import asyncio
import getpass
import os
import queue
import secrets
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, TypeVar

from beeq.errors import escaped

T = TypeVar("T")

#: beeq's version, which peers and servers see; ``pyproject.toml`` has the same.
VERSION = "0.1.0"
STOPS = (signal.SIGINT, signal.SIGTERM)
#: The first signal lets running jobs end, the second hands them back.
_MOST_SIGNALS = 2
_INTERRUPTS_WITH_ASYNCIO = False
_FLUSH_S = 1.0
#: How long a command may take to end once its work is done.
END_LIMIT_S = 2.0
#: What programs need to find themselves and their libraries.
_PLAIN = (
    *("PATH", "HOME", "TMPDIR", "TZ"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
)
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


def signal_name(number: int) -> str:
    """Return a signal's name, such as ``SIGTERM``."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def plain_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment a program gets that is not the user's own code: no secret is in it."""
    return {name: environ[name] for name in _PLAIN if name in environ}


def process_name() -> str:
    """Return this process's name in ``beeq:workers``: ``<host>:<pid>:<8 random hexadecimal digits>``."""
    pid = os.getpid()
    if pid not in _process_names:
        _process_names.clear()
        _process_names[pid] = f"{socket.gethostname()}:{pid}:{secrets.token_hex(4)}"
    return _process_names[pid]


def user_name() -> str:
    """Return ``user@host``: who runs this process, as far as the machine knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def call_in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call ``function`` in a daemon thread of its own; return what the running loop waits for.

    Not in the loop's pool of threads: handlers that hang may hold all of it, and its threads hold up an exit.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()
    # Emptied at the end. An error holds the frames that it passed; if ``call`` still held the future, which
    # holds the error, all that the function read would be kept until a garbage collection.
    waiting = [ended]

    def settle(result: T | None, error: BaseException | None) -> None:
        ended = waiting.pop()
        if ended.done():
            return  # no caller waits any more
        if error is None:
            ended.set_result(result)  # type: ignore[arg-type]  # None is what it returned
        else:
            ended.set_exception(error)

    def call() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = raised
        with suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(settle, result, error)
        del result, error

    threading.Thread(target=call, name="beeq-call", daemon=True).start()
    return ended


class LastResort:
    """Ends the process so many seconds after ``begin``, unless ``cancel`` comes before.

    For commands, whose jobs have gone back by then: when asyncio and the interpreter end, they wait for
    hanging threads, asyncio also for tasks that ignore their cancellation; a blocked loop never ends.
    ``last_act`` is called before the end, in a thread; it has a bound of its own, and returns the last words.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        code: int,
        last_words: str = "",
        last_act: Callable[[], str] | None = None,
    ) -> None:
        self._limit_s = limit_s
        # Its ``put`` may be interrupted by a signal's handler that puts, too; an Event's ``set`` may not.
        self._ends: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        act = last_act or (lambda: last_words)
        threading.Thread(target=self._watch, args=(code, act), name="beeq-end", daemon=True).start()

    def begin(self, limit_s: float | None = None) -> None:
        """Start the time limit, or shorten it; may be called from a signal's handler.

        (There no thread may be started.)
        """
        self._ends.put(time.monotonic() + (self._limit_s if limit_s is None else limit_s))

    def cancel(self) -> None:
        """Let the process live."""
        self._ends.put(None)

    def _watch(self, code: int, last_act: Callable[[], str]) -> None:
        end_s: float | None = self._ends.get()
        while end_s is not None:
            try:
                next_s = self._ends.get(timeout=min(max(0, end_s - time.monotonic()), threading.TIMEOUT_MAX))
            except queue.Empty:
                end_process(code, last_act())
            end_s = None if next_s is None else min(end_s, next_s)


def end_process(code: int, last_words: str = "") -> NoReturn:
    """End the process now; what was printed is written, and ``last_words``, unless that hangs, too."""
    flushing = threading.Thread(target=_flush, args=(last_words,), daemon=True)
    flushing.start()
    flushing.join(_FLUSH_S)
    os._exit(code)


def _flush(last_words: str) -> None:
    if last_words:
        with suppress(Exception):
            sys.stderr.write(f"{escaped(last_words)}\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or without a reader; or there is none
            stream.flush()


@contextmanager
def stop_signals(
    on_signal: Callable[[int], object],
    *,
    numbers: Sequence[int] = STOPS,
    at_once: Callable[[], object] | None = None,
    takes_over: bool = True,
) -> Iterator[None]:
    """Call ``on_signal(number)`` in the running loop at the first of these signals, and at the second.

    All callers in one loop share the signals: each is called; one that joins later is called at once. A third
    signal goes to the handler that was there before, which as a rule ends the process, even one whose loop is
    blocked. When the last caller has left, the earlier handlers are restored, the loop's own included, unless
    the program has set others meanwhile. ``at_once`` is called by the signal's handler itself, where the loop
    may be blocked and little may be done. In another thread than the main one this does nothing.

    A process has one owner of its signals. A command is the owner: it ``takes_over`` all handlers. Inside
    another program beeq is not: if that program handles one of ``numbers``, beeq takes none of them, and if
    it starts to do so later, beeq gives back the others. Handlers that do not count: the system's and
    Python's own, that of ``asyncio.Runner`` (which cancels the main task), and beeq's of a loop that has
    stopped. An ignored signal, as in a shell's background, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = _signals_of_loops.setdefault(loop, _LoopSignals(loop))
    asking = signals.enter(_Asking(on_signal, numbers, at_once, takes_over))
    try:
        yield
    finally:
        signals.leave(asking)


@dataclass(frozen=True, slots=True, eq=False)
class _Asking:
    on_signal: Callable[[int], object]
    numbers: Sequence[int]
    at_once: Callable[[], object] | None
    takes_over: bool


class _LoopSignals:
    """The callers of ``stop_signals`` in one loop, and the handlers that were there before them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_ref = weakref.ref(loop)
        self._pid = os.getpid()
        self._asking: list[_Asking] = []
        self._come: list[int] = []  # the signals received since the first caller joined
        self._handler = self._caught  # one object, by which it is known again
        self._found: dict[int, Any] = {}  # signal → the process's handler
        self._found_in_loop: dict[int, Any] = {}  # signal → the loop's

    def enter(self, asking: _Asking) -> _Asking:
        """Call it from now on, also for the signals that the other callers are just handling."""
        self._asking.append(asking)
        if asking.takes_over or _are_free(asking.numbers):
            for number in asking.numbers:
                found = signal.getsignal(number)
                if found != self._handler and (asking.takes_over or found is not signal.SIG_IGN):
                    self._install(number)
        loop = asyncio.get_running_loop()
        for number in self._come:
            if number in asking.numbers:
                loop.call_soon(self._call, asking, number)
        return asking

    def leave(self, asking: _Asking) -> None:
        """Restore the handlers of the signals that no caller asks for any more."""
        self._asking.remove(asking)
        left = {number for other in self._asking for number in other.numbers}
        with suppress(ValueError):  # a coroutine that was never ended, collected in another thread
            for number in set(asking.numbers) - left:
                self._restore(number)
        if not self._asking:
            self._come.clear()

    def _install(self, number: int) -> None:
        self._found[number] = signal.getsignal(number)
        self._found_in_loop.pop(number, None)
        # asyncio's loops keep their handlers there, and only there. uvloop's cannot be set aside: they are
        # called, too.
        in_loop = getattr(self._loop_ref(), "_signal_handlers", {})
        if number in in_loop:
            self._found_in_loop[number] = in_loop.pop(number)
        # It interrupts calls, as asyncio's own does not: else no handler runs where a lock is waited for.
        signal.signal(number, self._handler)

    def _restore(self, number: int) -> None:
        """Put back what was found, where our own is still in its place."""
        if number not in self._found or signal.getsignal(number) != self._handler:
            return
        found = self._found[number]
        signal.signal(number, signal.SIG_DFL if found is None else found)  # None: set by C code
        if number in self._found_in_loop:
            getattr(self._loop_ref(), "_signal_handlers", {})[number] = self._found_in_loop.pop(number)
            signal.siginterrupt(number, _INTERRUPTS_WITH_ASYNCIO)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        """Pass the signal on; called between any two steps of the main thread, blocked loop or not.

        A process that a handler has forked has this handler, too, and a loop that seems to run: the signal
        ends it, as ``multiprocessing`` expects.
        """
        loop = self._loop_ref()
        is_heard = self._is_owner() and len(self._come) < _MOST_SIGNALS and os.getpid() == self._pid
        if loop is not None and loop.is_running() and is_heard:
            self._come.append(number)
            for asking in self._asking:
                if asking.at_once is not None and number in asking.numbers:
                    asking.at_once()
            # Not in the context of what the signal interrupts.
            loop.call_soon_threadsafe(self._call_all, number, context=Context())
        else:
            self._restore(number)
            signal.raise_signal(number)

    def _is_owner(self) -> bool:
        """Return whether there is a caller here, and the signals are still ours to take."""
        return any(asking.takes_over or _are_free(asking.numbers) for asking in self._asking)

    def _call_all(self, number: int) -> None:
        for asking in list(self._asking):
            if number in asking.numbers:
                asking.on_signal(number)

    def _call(self, asking: _Asking, number: int) -> None:
        if asking in self._asking:
            asking.on_signal(number)


def _are_free(numbers: Sequence[int]) -> bool:
    """Return whether the program itself handles none of these signals."""
    return all(_is_free(signal.getsignal(number)) for number in numbers)


def _is_free(handler: Any) -> bool:
    if handler in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
        return True
    method = getattr(handler, "func", handler)  # asyncio's Runner wraps its own
    return isinstance(getattr(method, "__self__", None), (_LoopSignals, asyncio.Runner))


_signals_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopSignals] = (
    weakref.WeakKeyDictionary()
)
