"""How many jobs a second came into a queue and left it between two looks, from counts alone. Pure."""

from dataclasses import dataclass

from beeq import Stats


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs a second, as far as counts show: new or retried by hand; ended, removed or cancelled."""

    came: float
    left: float


def rate_between(before: Stats, after: Stats, elapsed_s: float) -> Rate:
    """Return the rate between two looks.

    Jobs with automatic ids are counted by these, others by what the queue holds. Of jobs with chosen ids
    whose records are dropped at their end, those that came and left between the looks are not seen.
    """
    pending = _pending(after) - _pending(before)
    ended = after.succeeded + after.failed - before.succeeded - before.failed
    came = max(after.newest_job - before.newest_job, pending + max(ended, 0), 0)
    left = max(came - pending, 0)
    return Rate(came / elapsed_s, left / elapsed_s)


def _pending(stats: Stats) -> int:
    return stats.waiting + stats.active + stats.delayed
