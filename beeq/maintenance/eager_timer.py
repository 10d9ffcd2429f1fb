"""When to look at the delayed jobs next. A decision, not a timer.

The owner brings the clock, sleeps until ``deadline_ms``, and calls ``fire``.
"""

import math


class EagerTimer:
    """One deadline that only moves nearer, and is never farther off than ``max_delay_ms``.

    Raises:
        ValueError: ``max_delay_ms`` is not a positive integer.
    """

    def __init__(self, max_delay_ms: int) -> None:
        if isinstance(max_delay_ms, bool) or not isinstance(max_delay_ms, int) or max_delay_ms <= 0:
            raise ValueError("maximum delay must be a positive integer")
        self._max_delay_ms = max_delay_ms
        self._stopped = False
        #: When to look, in the owner's ms; None before the first ``schedule`` and after ``stop``.
        self.deadline_ms: int | None = None

    def schedule(self, at_ms: float | None, *, now_ms: int) -> bool:
        """Ask to look at ``at_ms``; return True if that is now or past: look at once.

        None, NaN and negative times mean "nothing is known": the farthest deadline.
        """
        if self._stopped:
            return False
        farthest_ms = now_ms + self._max_delay_ms
        # An int may be too large for a float, and so for ``isnan``.
        if at_ms is None or (isinstance(at_ms, float) and math.isnan(at_ms)) or at_ms < 0:
            wanted_ms = farthest_ms
        elif at_ms <= now_ms:
            self.deadline_ms = farthest_ms
            return True
        else:
            wanted_ms = min(math.ceil(min(at_ms, farthest_ms)), farthest_ms)
        if self.deadline_ms is None or wanted_ms < self.deadline_ms:
            self.deadline_ms = wanted_ms
        return False

    def fire(self, *, now_ms: int) -> bool:
        """Return True if the deadline has come, and set the next one."""
        if self._stopped or self.deadline_ms is None or now_ms < self.deadline_ms:
            return False
        self.deadline_ms = now_ms + self._max_delay_ms
        return True

    def stop(self) -> None:
        """Never look again."""
        self._stopped = True
        self.deadline_ms = None
