"""bee-queue's backoff strategies (protocol/README.md, "Retry and backoff").

A strategy takes a job and returns a delay in ms; it may change the job's options. ``outcome.py`` calls it.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

#: A strategy looks at the ``Job`` and returns the delay in ms; below 0 the job fails.
Strategy = Callable[[Any], int]

#: Longer delays overflow JavaScript's timers, in Node peers and in their dashboards.
MAX_DELAY_MS = 2**31 - 1


class HasOptions(Protocol):
    """What the built-in strategies need of a job."""

    @property
    def options(self) -> dict[str, Any]:
        """The record's options under their wire names."""


def immediate(job: HasOptions) -> int:  # noqa: ARG001 - a strategy is called with its job
    """Return no delay."""
    return 0


def fixed(job: HasOptions) -> int:
    """Return the stored delay."""
    return math.ceil(_stored_delay_ms(job.options))


def exponential(job: HasOptions) -> int:
    """Return the stored delay, and double it in the job's options for the attempt after that."""
    delay_ms = _stored_delay_ms(job.options)
    if delay_ms > 0:
        job.options["backoff"]["delay"] = min(delay_ms * 2, MAX_DELAY_MS)
    return math.ceil(delay_ms)


def builtin_strategies() -> dict[str, Strategy]:
    """Return bee-queue's three strategies by name, as a new dict that a queue may extend."""
    return {"immediate": immediate, "fixed": fixed, "exponential": exponential}


def _stored_delay_ms(options: dict[str, Any]) -> float:
    """Return the stored delay in ms; -1, which fails the job as it does in Node, if it is not a valid one."""
    delay_ms = options["backoff"].get("delay")
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float):
        return -1
    return min(delay_ms, MAX_DELAY_MS) if delay_ms >= 0 else -1  # NaN is not
