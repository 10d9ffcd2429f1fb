"""The queues of a command: those named, or all in Redis. Writes nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import click

from beeq import Queue, RedisRefused
from beeq.errors import text_of
from beeq.jobs import JOB_TYPES
from beeq.operations.queue_names import find_queue_names
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline
from beeq_cli.console import say
from beeq_cli.options import Common
from beeq_cli.running import opened, queues_to_look_into

T = TypeVar("T")

#: How often new queues are looked for: that may take a search through many keys.
_FIND_EVERY_S = 30.0
#: How many queues are read at once: some milliseconds of Redis's time.
_ASKED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue, and its connection, which several may share."""

    name: str
    pipeline: Pipeline
    keys: Keys


class EveryQueue:
    """Opens what is needed; ``async with`` closes it.

    Attributes:
        is_found: whether the queues were not named, but found.
        has_failed: whether a queue could not be read; the reason was printed.
    """

    def __init__(self, common: Common, names: Sequence[str]) -> None:
        if "" in names:
            raise click.UsageError("QUEUE is empty")
        self.is_found = not names
        self.has_failed = False
        self._is_quiet = common.is_quiet
        self._queues = queues_to_look_into(dict.fromkeys(names) or [next(iter(JOB_TYPES))], common)
        self._stack = AsyncExitStack()
        self._names: list[str] = []
        self._find_at_s = 0.0

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._stack.enter_async_context(opened(*self._queues))
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Hang up."""
        await self._stack.aclose()

    async def _views(self) -> list[QueueView]:
        if not self.is_found:
            return [QueueView(queue.name, queue.pipeline, queue.keys) for queue in self._queues]
        (queue,) = self._queues
        if time.monotonic() >= self._find_at_s:
            self._names = await self._find(queue)
            self._find_at_s = time.monotonic() + _FIND_EVERY_S
        return [QueueView(name, queue.pipeline, replace(queue.keys, queue_name=name)) for name in self._names]

    async def _find(self, queue: Queue) -> list[str]:
        names, is_complete = await find_queue_names(
            queue.pipeline, queue.settings.prefix, registry=queue.keys.queues
        )
        if not (is_complete or self._is_quiet):
            say("Not all of Redis's keys could be looked at; a queue that only Node uses may be missing")
        return names

    async def ask(self, question: Callable[[QueueView], Awaitable[T]]) -> dict[str, T]:
        """Return the answer of each queue by its name.

        A found queue that cannot be read is left out, and the reason is printed: a key of another type, a
        missing right. For a named one RedisRefused is raised.
        """
        views = await self._views()
        found: dict[str, T] = {}
        for start in range(0, len(views), _ASKED_AT_ONCE):
            some = views[start : start + _ASKED_AT_ONCE]
            answers = await asyncio.gather(*(self._answer(question, view) for view in some))
            found |= {view.name: answer for view, answer in zip(some, answers, strict=True) if answer}
        return found

    async def _answer(self, question: Callable[[QueueView], Awaitable[T]], view: QueueView) -> T | None:
        try:
            return await question(view)
        except RedisRefused as refused:
            if not self.is_found:
                raise
            self.has_failed = True
            say(f"{view.name}: {text_of(refused)}")
            return None
