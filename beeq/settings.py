"""A queue's settings: bee-queue's, in snake_case, and beeq's own. Checked once, then frozen.

Never reads the environment.
"""

import math
import re
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal, Self, TypedDict

_SAFE_INTEGER = 2**53 - 1
#: Changes, some hundred bytes each. Those dropped beyond this are found by the mirror's reconciler.
OUTBOX_LIMIT = 100_000


#: A duration: an int is milliseconds, as in bee-queue; text has its unit (``"30s"``).
Duration = int | timedelta | str
#: Durations as text, for messages.
EXAMPLES = "500ms, 2s, 1.5s, 5m, 1h or 1d"
#: What ``Keep.of`` reads, for messages.
KEEP_EXAMPLES = "7d, 10000, 7d,10000 or all"
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LARGEST_FIRST = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)")


def parse_duration(text: str) -> int:
    """Return the milliseconds, rounded up, of ``500ms``, ``2s``, ``1.5s``, ``5m``, ``1h``, ``1d`` or ``0``.

    Raises:
        ValueError: it is none of these, or too long. A bare number could mean seconds or milliseconds.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid duration {text!r}; write {EXAMPLES}")
    number = Decimal(match[1])
    if number and not match[2]:
        raise ValueError(f"the duration {text!r} has no unit; write {EXAMPLES}")
    duration_ms = math.ceil(number * _UNITS_MS[match[2] or "ms"])  # up, because 0 often means "none"
    if duration_ms > _SAFE_INTEGER:
        raise ValueError(f"{text!r} is too long")
    return duration_ms


def show_duration(duration_ms: int) -> str:
    """Return the duration in its two largest units, as people say it: ``3m 12s``."""
    for (large, large_ms), (small, small_ms) in pairwise(_LARGEST_FIRST):
        if duration_ms >= large_ms:
            return f"{duration_ms // large_ms}{large} {duration_ms % large_ms // small_ms}{small}"
    seconds = duration_ms / 1000
    if seconds < 1:
        return f"{duration_ms}ms"
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"  # noqa: PLR2004 - from there on, whole seconds


def in_ms(duration: Any) -> Any:
    """Return a timedelta or text in ms, rounded up; anything else unchanged, for the caller to check.

    Raises:
        ValueError: text that is not a duration.
    """
    if isinstance(duration, timedelta):
        return math.ceil(duration / timedelta(milliseconds=1))
    return parse_duration(duration) if isinstance(duration, str) else duration


def milliseconds(name: str, value: Any, *, at_least: int = 0) -> int:
    """Return a ``Duration`` in ms.

    Raises:
        TypeError: it is not one. ValueError: invalid text, or below ``at_least``. Both name the setting.
    """
    try:
        value = in_ms(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return _checked(
        name, value, at_least, (" (milliseconds), a timedelta or text like 30s", " (milliseconds)")
    )


def whole(name: str, value: Any, *, at_least: int) -> int:
    """Return ``value`` if it is an int of at least ``at_least``.

    Raises:
        TypeError: it is not an int. ValueError: it is out of range. Both name the setting.
    """
    return _checked(name, value, at_least, ("", ""))


def _checked(name: str, value: Any, at_least: int, units: tuple[str, str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{units[0]}, not {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}{units[1]}, not {value}")
    if value > _SAFE_INTEGER:
        raise ValueError(f"{name} must be at most {_SAFE_INTEGER}{units[1]}, not {value}")
    return value


def duration_text(duration_ms: int) -> str:
    """Return the duration as ``parse_duration`` reads it, in the largest unit without a fraction: ``7d``."""
    for unit, unit_ms in reversed(_UNITS_MS.items()):
        if duration_ms % unit_ms == 0 and (duration_ms or unit == "s"):
            return f"{duration_ms // unit_ms}{unit}"
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Keep:
    """Which ended jobs stay in Redis: ``Keep(age="7d", count=10_000)``. The others are dropped, step by step.

    As text (``Keep.of``): ``7d``, ``10000``, ``7d,10000``, ``7d,10000,own`` or ``all``.

    Attributes:
        age: how long ago a job may have ended, in ms (any ``Duration`` is converted). None: any time.
        count: how many may stay; the oldest go. None: any number.
        own: whether only jobs go, and are counted, that workers with such a setting have recorded. Off: all
            of the queue, Node's too; of those that others have recorded, the age counts from when they were
            first seen.

    Raises:
        TypeError, ValueError: not a duration, not a count.
    """

    age: Duration | None = None
    count: int | None = None
    own: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if self.age is not None:
            object.__setattr__(self, "age", milliseconds("age", self.age))
        if self.count is not None:
            whole("count", self.count, at_least=0)
        if not isinstance(self.own, bool):
            raise TypeError(f"own must be a bool, not {type(self.own).__name__}")

    @property
    def age_ms(self) -> int | None:
        """The age in ms."""
        return None if self.age is None else milliseconds("age", self.age)

    @property
    def is_all(self) -> bool:
        """Whether nothing is dropped."""
        return self.age is None and self.count is None

    def __str__(self) -> str:
        """Return it as ``of`` reads it."""
        age_ms = self.age_ms
        parts = [
            "" if age_ms is None else duration_text(age_ms),
            "" if self.count is None else str(self.count),
            "own" if self.own else "",
        ]
        return "all" if self.is_all else ",".join(filter(None, parts))

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return what is meant: a ``Keep``, an int (a count), a timedelta (an age), or text.

        Raises:
            TypeError: none of these. ValueError: text that says nothing, or a thing twice; a negative number.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, timedelta):
            return cls(age=value)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(count=value)
        if not isinstance(value, str):
            raise TypeError(f"it must be a Keep, a count, a timedelta or text, not {type(value).__name__}")
        return cls._read(value)

    @classmethod
    def _read(cls, text: str) -> Self:
        if text.strip() == "all":
            return cls()
        found: dict[str, Any] = {}
        for part in map(str.strip, text.split(",")):
            name, value = cls._part(part)
            if name in found:
                raise ValueError(f"{text!r} names two {name}s; write {KEEP_EXAMPLES}")
            found[name] = value
        if found.keys() == {"own"}:
            raise ValueError(f"{text!r} names no age and no count; write {KEEP_EXAMPLES}")
        return cls(**found)

    @staticmethod
    def _part(part: str) -> tuple[str, Any]:
        if part == "own":
            return "own", True
        if part.isascii() and part.isdecimal():
            return "count", int(part)
        try:
            return "age", parse_duration(part)
        except ValueError:
            raise ValueError(f"{part!r} is neither an age nor a count; write {KEEP_EXAMPLES}") from None


def keep(name: str, value: Any) -> Keep | None:
    """Return what ``Keep.of`` does; None stays None. Its errors name the setting."""
    try:
        return None if value is None else Keep.of(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


class ServiceSettings(TypedDict, total=False):
    """The settings of a queue but for its prefix, as arguments; ``Settings`` says what each does."""

    is_worker: bool
    get_events: bool
    send_events: bool
    store_jobs: bool
    ensure_scripts: bool
    activate_delayed_jobs: bool
    remove_on_success: bool
    remove_on_failure: bool
    stall_interval: Duration
    near_term_window: Duration
    delayed_debounce: Duration
    redis_scan_count: int
    initial_redis_failure_retry_delay: Duration
    quit_command_client: bool | None
    auto_connect: bool
    max_stalls: int
    result_ttl: Duration
    keep_results: bool
    mirrored: bool
    max_hung: int | None
    redis_timeout: Duration
    wait_replicas: int
    keep_succeeded: Keep | int | timedelta | str | None
    keep_failed: Keep | int | timedelta | str | None
    job_timeout: Duration
    claim_ahead_ms: Duration
    tracing: Literal["link", "child"] | None


class QueueSettings(ServiceSettings, total=False):
    """The settings of a queue, as arguments."""

    prefix: str | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one queue; durations are ints in ms (a ``Duration`` is converted).

    Raises:
        TypeError: a value of the wrong type. ValueError: a value out of range. Both name it.
    """

    #: The first part of every key. Empty means ``bq``.
    prefix: str = "bq"
    #: May call ``process``.
    is_worker: bool = True
    #: Receive the events of jobs, also of those that other processes run.
    get_events: bool = True
    #: Publish the events of jobs that run here (progress is always published).
    send_events: bool = True
    #: Deliver events to the job objects made here, which are held weakly.
    store_jobs: bool = True
    #: Load the scripts on connecting. Otherwise the first call loads them.
    ensure_scripts: bool = True
    #: Raise delayed jobs when due. On here, off in bee-queue, where they wait for ever.
    activate_delayed_jobs: bool = True
    #: Drop a job's record once it has succeeded.
    remove_on_success: bool = False
    #: Drop a job's record once it has failed for good.
    remove_on_failure: bool = False
    #: The stall window. Must be the same on all peers of a queue, Node's too: a shorter one makes
    #: the jobs of the others stall.
    stall_interval: int = 5000
    #: The longest time between two checks for due jobs.
    near_term_window: int = 1_200_000
    #: Delayed jobs that are due this close together are activated together.
    delayed_debounce: int = 1000
    #: The largest COUNT of an SSCAN.
    redis_scan_count: int = 100
    #: The first wait after a failed fetch; doubles up to 30 s, with jitter, and starts over on success.
    initial_redis_failure_retry_delay: int = 1000
    #: Whether to close a client that was passed in. None means no.
    quit_command_client: bool | None = None
    #: Connect at the first await. Otherwise only in ``connect()``.
    auto_connect: bool = True
    #: How often a job may be lost by its worker and run again; once more, and it fails.
    max_stalls: int = 3
    #: How long a result outlives a record that was removed on finish.
    result_ttl: int = 600_000
    #: Keep the result of a job, or the text of its failure, for as long as its record. Off: those who hear
    #: the events have it; others find, as after a Node worker, None or the trace's text.
    keep_results: bool = True
    #: Note each change of a job in the queue's outbox, for the status mirror.
    mirrored: bool = False
    #: How many handlers may go on after their time (a thread cannot be stopped) before the worker takes no
    #: more jobs until some of them end. None: as many as run at once, and at least 10.
    max_hung: int | None = None
    #: The longest wait for one reply of Redis.
    redis_timeout: int = 5000
    #: How many replicas must confirm (WAIT) a save, retry, removal or cancellation before the call returns;
    #: if fewer do within half of ``redis_timeout``, ``NotReplicated`` is raised. With all replicas no
    #: failover undoes a confirmed call; with one of two it may, for the other may be promoted. 0: no replica
    #: is asked. A worker does not wait for replicas: if a failover undoes an outcome, the job runs again.
    wait_replicas: int = 0
    #: Which succeeded jobs this queue's workers keep; they drop the others with their results, the oldest
    #: first, and the ids may be used again. ``Keep.of`` says what may be given. None: nothing is dropped, as
    #: with ``all``; but ``beeq worker`` has a default for None. Where workers differ, each drops what its own
    #: setting says.
    keep_succeeded: Keep | None = None
    #: The same of failed jobs.
    keep_failed: Keep | None = None
    #: The limit of an attempt that runs here, if its job has no ``timeout`` of its own (0 is one: no limit),
    #: also where a Node peer has enqueued it. 0: none. The record stays as it is.
    job_timeout: int = 0
    #: A worker also claims jobs for which it has no free place yet, up to 64, if they are likely to begin
    #: within this many ms: then one call to Redis fetches many short jobs, at any concurrency. A job that has
    #: not begun within four times that goes back to the front of the queue. Where attempts take longer, with
    #: ``max_stalls=0``, and with 0 here, nothing is claimed ahead.
    claim_ahead_ms: int = 5
    #: Make OpenTelemetry spans of saving jobs and of attempts; needs the extra ``otel``. ``link``: an attempt
    #: begins a trace of its own, linked to the one that saved the job. ``child``: it goes on with that trace.
    tracing: Literal["link", "child"] | None = None

    @property
    def outbox_limit(self) -> int:
        """The most changes that the outbox holds; 0 means that none are noted."""
        return OUTBOX_LIMIT if self.mirrored else 0

    def __post_init__(self) -> None:
        """Check every value."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type is bool and not isinstance(value, bool):
                raise TypeError(f"{setting.name} must be a bool, not {type(value).__name__}")
        if self.quit_command_client is not None and not isinstance(self.quit_command_client, bool):
            raise TypeError("quit_command_client must be a bool or None")
        if self.prefix is None:
            self._set("prefix", "bq")
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix must be a str, not {type(self.prefix).__name__}")
        self._set("prefix", self.prefix or "bq")
        self._set("stall_interval", milliseconds("stall_interval", self.stall_interval, at_least=1))
        self._set("near_term_window", self._near_term_window())
        for name, at_least in (
            ("delayed_debounce", 0),
            ("initial_redis_failure_retry_delay", 1),
            ("result_ttl", 1),
            ("redis_timeout", 1),
            ("job_timeout", 0),
            ("claim_ahead_ms", 0),
        ):
            self._set(name, milliseconds(name, getattr(self, name), at_least=at_least))
        whole("redis_scan_count", self.redis_scan_count, at_least=1)
        whole("max_stalls", self.max_stalls, at_least=0)
        whole("wait_replicas", self.wait_replicas, at_least=0)
        if self.tracing not in (None, "link", "child"):
            raise ValueError(f"tracing must be None, 'link' or 'child', not {self.tracing!r:.100}")
        if self.max_hung is not None:
            whole("max_hung", self.max_hung, at_least=1)
        for name in ("keep_succeeded", "keep_failed"):
            self._set(name, keep(name, getattr(self, name)))

    def _near_term_window(self) -> int:
        window_ms = milliseconds("near_term_window", self.near_term_window, at_least=-_SAFE_INTEGER)
        if window_ms <= 0:
            # bee-queue's own words, with the setting's name.
            raise ValueError(f"near_term_window: maximum delay must be a positive integer, not {window_ms}")
        return window_ms

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
