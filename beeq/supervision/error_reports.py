"""Reports a queue's errors to its listeners, or the log, without repeating the same one all the time.

While Redis is away, or refuses something, each duty of a queue gets the same error at each of its tries.

* The first error of a class and text is reported at once, also in the middle of an outage: different errors
are never merged.
* While Redis is away (``RedisUnavailable``), repetitions are counted, and the latest one is reported after
``FIRST_REST_S`` = 5 s, then after twice as long each time, up to ``LONGEST_REST_S`` = 5 min, unless Redis,
asked just before, is back. Its ``repeated`` is how many more there were (in a note, too).
* A refusal (``RedisRefused``) is reported ``REFUSALS`` = 10 times as it comes, as bee-queue reports each, and
then counted in the same way. After a minute without it, it counts as new.
* Only errors of Redis (``RedisError``) are counted. Errors of a job, a listener or a duty are reported each
time.
* While Redis is away, it is asked over a connection of its own, after 0.5 s, then after twice as long each
time up to ``LONGEST_PAUSE_S`` = 5 s. Once it answers, and no duty has got the error for half a second, the
queue emits ``reconnected`` with the length of the outage, in ms, and the number of errors; without a listener
that is logged. The next outage is reported at once again.

So an outage gives one ``error`` event for each of its texts, then one now and then, and a ``reconnected`` at
most about 6 s, and the time of a connection, after Redis is back. At most ``MAX_KINDS`` errors are
remembered.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from beeq.errors import RedisError, RedisUnavailable, kind_and_text_of
from beeq.logs.records import log_event, log_queue_error

FIRST_REST_S = 5.0
LONGEST_REST_S = 300.0
REFUSALS = 10
#: An error that did not occur for so long counts as new.
_FORGOTTEN_S = 60.0
MAX_KINDS = 50
#: Between two looks at what is to be reported.
_STEP_S = 0.5
LONGEST_PAUSE_S = 5.0
#: Redis is back when it answers and no duty has got an error for so long.
_QUIET_S = 0.5


class RedisLine(Protocol):
    """The ``Connection`` over which Redis is asked."""

    def call(self, *command: Any) -> Coroutine[Any, Any, Any]:
        """Send a command, connecting first if need be; return its reply, or raise RedisError."""

    async def close(self) -> None:
        """Hang up; the next call connects again."""


class _KnownError:
    """Errors of one class and text."""

    __slots__ = ("free", "latest", "met_at", "rest_s", "said_at", "unsaid")

    def __init__(self, error: RedisError, now: float) -> None:
        self.latest = error
        self.said_at = self.met_at = now
        self.rest_s = FIRST_REST_S
        self.unsaid = 0
        #: How many more are reported as they come.
        self.free = 0 if isinstance(error, RedisUnavailable) else REFUSALS - 1


class ErrorReports:
    """One queue's error reports.

    ``emit`` calls the queue's listeners of an event, and returns whether there were any; ``spawn`` runs a
    coroutine until the queue closes, and returns whether it could; ``connection`` is for nothing else.
    """

    def __init__(
        self,
        queue_name: str,
        *,
        emit: Callable[..., bool],
        spawn: Callable[[Coroutine[Any, Any, None]], bool],
        connection: RedisLine,
    ) -> None:
        self._queue_name = queue_name
        self._emit = emit
        self._spawn = spawn
        self._connection = connection
        self._kinds: OrderedDict[str, _KnownError] = OrderedDict()  # the latest at the end
        self._is_following = False
        self._away_since: float | None = None
        self._away_errors = 0
        self._asked_at = 0.0
        self._pause_s = _STEP_S

    def report(self, error: BaseException) -> None:
        """Emit ``error``, or count it if it was reported lately; without a listener it is logged."""
        if not isinstance(error, RedisError):
            self._say(error)
            return
        now = time.monotonic()
        if isinstance(error, RedisUnavailable):
            if self._away_since is None:
                self._away_since, self._away_errors = now, 0
                self._asked_at, self._pause_s = now, _STEP_S
            self._away_errors += 1
        text = kind_and_text_of(error)
        kind = self._kinds.pop(text, None)
        if kind is None or now - kind.met_at > max(_FORGOTTEN_S, kind.rest_s):
            kind = _KnownError(error, now)
            self._kinds[text] = kind
            if len(self._kinds) > MAX_KINDS:
                self._say_again(self._kinds.popitem(last=False)[1], now)
            self._say(error)
        else:
            self._kinds[text] = kind
            kind.latest, kind.met_at = error, now
            if kind.free:
                kind.free -= 1
                kind.said_at = now
                self._say(error)
            else:
                kind.unsaid += 1
        if not self._is_following and (kind.unsaid or self._away_since is not None):
            with contextlib.suppress(RuntimeError):  # no loop runs: nothing is open
                self._is_following = self._spawn(self._follow())

    def _say(self, error: BaseException) -> None:
        if not self._emit("error", error):
            log_queue_error(self._queue_name, error)

    def _say_again(self, kind: _KnownError, now: float) -> None:
        if not kind.unsaid:
            return
        error, more = kind.latest, kind.unsaid - 1
        kind.unsaid, kind.said_at = 0, now
        kind.rest_s = min(2 * kind.rest_s, LONGEST_REST_S)
        if more:
            error.repeated = more
            error.add_note(f"{more} more of them since it was last said")
        self._say(error)

    async def _follow(self) -> None:
        """Report the counts when it is time, and that Redis is back, until nothing is left to report."""
        try:
            while self._away_since is not None or any(kind.unsaid for kind in self._kinds.values()):
                await asyncio.sleep(_STEP_S)
                now = time.monotonic()
                due = [kind for kind in self._kinds.values() if now - kind.said_at >= kind.rest_s]
                # Before reporting again that Redis is away: it may have come back since the error.
                is_to_ask = any(kind.unsaid and self._is_outage(kind) for kind in due)
                if self._away_since is not None and (is_to_ask or now - self._asked_at >= self._pause_s):
                    await self._ask(self._away_since)
                for kind in due:
                    if kind in self._kinds.values():
                        self._say_again(kind, now)
        finally:
            self._is_following = False
            await self._connection.close()

    async def _ask(self, away_since: float) -> None:
        try:
            await self._connection.call("PING")
        except RedisUnavailable:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._asked_at = time.monotonic()
            return
        except RedisError:
            pass  # an error is an answer, too
        now = self._asked_at = time.monotonic()
        if any(self._is_outage(kind) and now - kind.met_at < _QUIET_S for kind in self._kinds.values()):
            self._pause_s = _STEP_S
            return
        self._away_since = None
        for text, kind in list(self._kinds.items()):
            if self._is_outage(kind):
                del self._kinds[text]
        away_ms = round((now - away_since) * 1000)
        if not self._emit("reconnected", away_ms, self._away_errors):
            what = f"Redis is back after {away_ms / 1000:.1f} s ({self._away_errors} errors)"
            log_event(logging.WARNING, what, queue=self._queue_name, duration_ms=away_ms)

    @staticmethod
    def _is_outage(kind: _KnownError) -> bool:
        return isinstance(kind.latest, RedisUnavailable)
