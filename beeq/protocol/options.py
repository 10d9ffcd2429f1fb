"""Checks a job's options, with bee-queue's error texts: protocol/README.md, "Error texts". No IO.

A check returns what is stored; it raises TypeError for a wrong type and ValueError for a wrong value.
"""

import math
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from beeq.settings import in_ms, milliseconds, parse_duration

#: JavaScript's timers hold no more; a Node worker would fire after 1 ms.
MAX_TIMEOUT_MS = 2**31 - 1
#: The largest whole number that a Node peer counts with.
SAFE_INTEGER = 2**53 - 1


def check_retries(retries: Any) -> int:
    """Return the number of further attempts."""
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be an int, not {type(retries).__name__}")
    if retries < 0:
        raise ValueError("Retries cannot be negative")
    if retries > SAFE_INTEGER:
        raise ValueError("retries is beyond what JavaScript can count")
    return retries


def check_timeout_ms(timeout: Any) -> int:
    """Return a timeout in ms, from a ``Duration``; 0 means none."""
    if not isinstance(timeout, str):
        timeout = in_ms(timeout)
    if isinstance(timeout, int) and timeout < 0:
        raise ValueError("Timeout cannot be negative")
    if isinstance(timeout, int) and timeout > SAFE_INTEGER:
        timeout = SAFE_INTEGER
    timeout_ms = milliseconds("timeout", timeout)
    if timeout_ms > MAX_TIMEOUT_MS:
        raise ValueError(f"timeout must be at most {MAX_TIMEOUT_MS} ms, not {timeout_ms}")
    return timeout_ms


def check_backoff(strategy: Any, delay: Any, known: Collection[str]) -> dict[str, Any]:
    """Return the ``backoff`` option: strategy, then delay in ms; ``immediate`` takes any delay, and none."""
    if not isinstance(strategy, str) or strategy not in known:
        raise ValueError("unknown strategy")
    if strategy == "immediate":
        delay = in_ms(delay) if isinstance(delay, timedelta) else delay
        return {"strategy": strategy} if delay is None else {"strategy": strategy, "delay": delay}
    try:
        delay = in_ms(delay)
    except ValueError as error:
        raise ValueError("delay must be a positive integer") from error  # bee-queue's words
    if isinstance(delay, bool) or not isinstance(delay, int) or not 0 < delay <= SAFE_INTEGER:
        raise ValueError("delay must be a positive integer")
    return {"strategy": strategy, "delay": delay}


def check_due_ms(when: Any, *, now_ms: int) -> int:
    """Return an absolute time in ms since the epoch, by the producer's clock.

    ``when`` is a datetime (naive means local time), ms since the epoch, or how long from now: a timedelta, or
    text like ``5m``.
    """
    if isinstance(when, datetime):
        try:
            when = when.timestamp() * 1000
        except (OverflowError, OSError, ValueError):
            raise ValueError("invalid delay timestamp") from None
    elif isinstance(when, timedelta):
        when = now_ms + when.total_seconds() * 1000
    elif isinstance(when, str):
        try:
            when = now_ms + parse_duration(when)
        except ValueError as error:
            raise ValueError("invalid delay timestamp") from error  # bee-queue's words
    if isinstance(when, float) and math.isfinite(when):
        when = int(round(when, 3))
    if isinstance(when, bool) or not isinstance(when, int):
        raise ValueError("invalid delay timestamp")  # noqa: TRY004 - bee-queue's one error for all of it
    due_ms: int = when
    if not 0 <= due_ms <= SAFE_INTEGER:
        raise ValueError("invalid delay timestamp")
    return due_ms


def check_delay(options: Any) -> int:
    """Return the option ``delay`` of a job that is to be saved, in ms since the epoch; 0: it may run at once.

    Text of digits is a time, as in bee-queue, which hands it to Redis unchanged.
    """
    if not isinstance(options, dict):
        raise TypeError(f"options must be a dict, not {type(options).__name__}")
    delay = options.get("delay")
    if not delay:
        return 0
    try:
        is_text = isinstance(delay, str) and delay.isascii() and delay.isdigit()
        number = int(delay) if is_text else delay
        # It is an absolute time by now: a record has none of the other forms of ``delay_until``.
        return check_due_ms(number if isinstance(number, int | float) else None, now_ms=0)
    except ValueError as error:
        raise ValueError(f"invalid delay timestamp: the option delay is {delay!r:.100}") from error


def check_job_id(job_id: Any) -> str | None:
    """Return the id as text; what JavaScript calls falsy (None, "", 0) asks for an automatic one."""
    if job_id is None or job_id == "" or (job_id == 0 and isinstance(job_id, int)):
        return None
    if isinstance(job_id, bool) or not isinstance(job_id, str | int):
        raise TypeError(f"a job id must be a str or an int, not {type(job_id).__name__}")
    text = str(job_id)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a job id must be valid Unicode") from None
    return text


def retries_left(options: dict[str, Any]) -> int:
    """Return how many retries a record still grants, by Node or by beeq; 0 for an invalid value."""
    retries = options.get("retries")
    if isinstance(retries, str):
        try:
            retries = float(retries)
        except ValueError:
            return 0
    return whole_of(retries)


def timeout_ms_of(options: dict[str, Any], default_ms: int = 0) -> int:
    """Return a record's timeout in ms; 0 means none.

    The default applies when the record has no valid timeout.
    """
    timeout = options.get("timeout")
    is_none = timeout == 0 and not isinstance(timeout, bool)
    return 0 if is_none else whole_of(timeout) or default_ms


def backoff_ms_of(options: dict[str, Any]) -> int:
    """Return how long the job's backoff would wait now; for a custom strategy its stored delay."""
    backoff = options.get("backoff")
    if not isinstance(backoff, dict) or backoff.get("strategy") == "immediate":
        return 0
    delay_ms = backoff.get("delay")
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float):
        return 0
    # Compared first: an integer may be too long for a float. NaN is not less than anything.
    return int(delay_ms) if 0 < delay_ms <= SAFE_INTEGER else 0


def postponed_ms_of(options: dict[str, Any]) -> int:
    """Return for how long the job was postponed so far, in ms; 0 for an invalid value."""
    own = options.get("beeq")
    return whole_of(own.get("postponed")) if isinstance(own, dict) else 0


def created_ms_of(options: dict[str, Any]) -> int:
    """Return the creation time in a record, in ms since the epoch; 0 for an invalid value."""
    created = options.get("timestamp")
    if isinstance(created, float) and math.isfinite(created):
        created = int(created)
    return created if isinstance(created, int) and abs(created) <= SAFE_INTEGER else 0


def first_due_ms_of(options: dict[str, Any]) -> int:
    """Return when a job without an attempt was due, in ms since the epoch; 0 if it was postponed.

    0 also if it is unknown.
    """
    created = options.get("timestamp")
    if (
        type(created) is int
        and 0 < created <= SAFE_INTEGER
        and "delay" not in options
        and "beeq" not in options
    ):
        return created  # as for nearly all jobs
    return 0 if postponed_ms_of(options) else max(created_ms_of(options), whole_of(options.get("delay")))


def whole_in(digits: bytes) -> int:
    """Return the number in Redis's digits; 0 if invalid or beyond 2^53."""
    is_short = len(digits) <= len(str(SAFE_INTEGER))
    return int(digits) if is_short and digits.isdigit() and int(digits) <= SAFE_INTEGER else 0


def whole_of(number: Any) -> int:
    """Return a record's number for calculating: 0 if invalid, and never beyond 2^53."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        return 0
    if isinstance(number, float):
        return math.ceil(min(number, SAFE_INTEGER)) if math.isfinite(number) else 0
    return min(number, SAFE_INTEGER)
