"""Searches through many jobs, which take longer than a request: each goes on in the background.

A repeated request for the same search, as by a page that polls its progress, gets the running one.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from beeq.client.closing import end_tasks
from beeq.errors import BeeqError, line_of
from beeq.operations.many import BulkCounts
from beeq.redis.urls import redact
from beeq.web.page import waits
from beeq.web.responses import Refusal

logger = logging.getLogger("beeq.web")

#: The longest search; its finds so far are shown then.
LONGEST_S = 20.0
#: How long a search's finds are reused at most: the longer it took, the longer.
_GOOD_FOR_S = 30.0
_MOST_REMEMBERED = 30
#: How many run at once. A visitor's second one needs two free places, and so on: the last is for a visitor
#: who has none.
_MOST_AT_ONCE = 4


@dataclass(slots=True)
class Search:
    """One search, and what it has found so far.

    Attributes:
        found: what the screen shows, one for each job.
        homes: prefix and name of each queue that has a job of the id.
        asked: how many queues were asked for it. queues: how many there are.
        looked_at: how many jobs were read. of: how many there are.
        unread: those whose records are too long to be read.
        passed: names of the queues that were not searched completely.
        is_whole: whether nothing was left out for lack of time.
        history: the mirror's part of the screen.
        problem: why it stopped. refusal: the response to raise instead.
    """

    found: list[Any] = field(default_factory=list)
    homes: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0
    queues: int = 0
    looked_at: int = 0
    of: int = 0
    unread: int = 0
    passed: list[str] = field(default_factory=list)
    is_whole: bool = True
    has_ended: bool = False
    history: Any = None
    refusal: Refusal | None = None
    problem: str = ""
    begun_s: float = field(default_factory=time.monotonic)
    good_until_s: float = 0.0

    def counter(self) -> Callable[[BulkCounts], None]:
        """Return a callback that adds the progress of one pass to that of earlier ones."""
        looked_at, unread = self.looked_at, self.unread

        def note(counts: BulkCounts) -> None:
            self.looked_at, self.unread = looked_at + counts.seen, unread + counts.unreadable

        return note


class Searches:
    """The searches of one page."""

    def __init__(self) -> None:
        self._searches: OrderedDict[Hashable, Search] = OrderedDict()
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._readers: dict[Hashable, str] = {}  # the visitors of running searches

    async def close(self) -> None:
        """Stop the running ones."""
        await end_tasks(*self._tasks.values())

    async def look(self, key: Hashable, work: Callable[[Search], Awaitable[None]], *, reader: str) -> Search:
        """Return the search of that key after a short wait; start ``work`` if there is none, or an old one.

        Raises Refusal: too many go on, or too many of this ``reader``; or what ``work`` raised.
        """
        search = self._searches.get(key)
        if search is None or (key not in self._tasks and time.monotonic() > search.good_until_s):
            own = list(self._readers.values()).count(reader)
            if _MOST_AT_ONCE - len(self._tasks) <= own:
                of_them = f", {own} of them yours" if own else ""
                raise Refusal(
                    503,
                    f"Several searches go on{of_them}: try again in a moment",
                    headers={"retry-after": "5"},
                )
            search = self._searches[key] = Search()
            self._searches.move_to_end(key)
            self._tasks[key] = task = asyncio.create_task(self._run(search, work))
            self._readers[key] = reader
            task.add_done_callback(lambda _: self._ended(key))
            self._forget_some()
        if key in self._tasks:
            await asyncio.wait({self._tasks[key]}, timeout=waits.SEARCH_S)
        if search.refusal is not None:
            raise search.refusal
        return search

    def forget(self) -> None:
        """Search again at the next look: jobs were changed."""
        for key in [each for each in self._searches if each not in self._tasks]:
            del self._searches[key]

    def _ended(self, key: Hashable) -> None:
        del self._tasks[key], self._readers[key]

    def _forget_some(self) -> None:
        old = [key for key in self._searches if key not in self._tasks]
        for key in old[: max(0, len(self._searches) - _MOST_REMEMBERED)]:
            del self._searches[key]

    @staticmethod
    async def _run(search: Search, work: Callable[[Search], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                await work(search)
        except TimeoutError:
            search.is_whole = False
        except Refusal as refusal:
            search.refusal = refusal
        except BeeqError as error:
            search.is_whole, search.problem = False, redact(line_of(error))
        except Exception:
            logger.exception("a search failed")
            search.is_whole, search.problem = False, "Internal error: the log says more"
        finally:
            search.has_ended = True
            took_s = time.monotonic() - search.begun_s
            if took_s > waits.SEARCH_S:  # a page polls for it
                search.good_until_s = time.monotonic() + min(_GOOD_FOR_S, 3 + 2 * took_s)
