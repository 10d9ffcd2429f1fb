"""How long to wait after a failure before trying again: doubling, capped, with jitter, reset by success."""

import asyncio
import random
from collections.abc import Callable

_LONGEST_MS = 30_000
_STEP_S = 0.1


class RetryDelay:
    """One owner's back-off; bee-queue's is shared by all slots, and has no cap."""

    def __init__(self, first_ms: int) -> None:
        self._first_ms = first_ms
        self._next_ms = first_ms

    async def wait(self, is_over: Callable[[], bool]) -> None:
        """Sleep the next delay; shortly, if ``is_over``."""
        delay_s = self._next_ms * random.uniform(0.75, 1) / 1000
        self._next_ms = min(self._next_ms * 2, _LONGEST_MS)
        while delay_s > 0:
            step_s = min(delay_s, _STEP_S)
            await asyncio.sleep(step_s)
            delay_s = 0 if is_over() else delay_s - step_s

    def reset(self) -> None:
        """It worked: begin anew."""
        self._next_ms = self._first_ms
