"""How long to wait after a failure of Redis before it is called again: doubling, capped, with jitter.

A job's retry delay is not decided here but in ``beeq.protocol.outcome``.
"""

import asyncio
import random
from collections.abc import Callable

_STEP_S = 0.1


class RetryDelay:
    """The delays of one owner between its tries; a success resets them.

    A change of ``news`` (another master was announced) ends a delay, also if it came before.
    """

    def __init__(
        self, first_ms: int, longest_ms: int = 30_000, *, news: Callable[[], int] = lambda: 0
    ) -> None:
        self._news = news
        self._seen = 0
        self._first_ms = self.next_ms = first_ms
        self._longest_ms = longest_ms
        #: Whether a delay was taken since the beginning, or the last ``reset``.
        self.has_grown = False

    async def wait(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Sleep the next delay; shortly, if ``is_over``."""
        delay_s = self.take_s()
        while delay_s > 0:
            step_s = 0 if self.has_news() else min(delay_s, _STEP_S)
            await asyncio.sleep(step_s)
            delay_s = 0 if is_over() or not step_s else delay_s - step_s

    def has_news(self) -> bool:
        """Return whether ``news`` has changed since the last look."""
        before, self._seen = self._seen, self._news()
        return self._seen != before

    def take_s(self) -> float:
        """Return the next delay, in seconds; the one after it is longer."""
        self.has_grown = True
        delay_s = self.next_ms * random.uniform(0.75, 1) / 1000
        self.next_ms = min(self.next_ms * 2, self._longest_ms)
        return delay_s

    def reset(self) -> None:
        """Begin with the first delay again."""
        self.next_ms = self._first_ms
        self.has_grown = False
