"""Knows whether a queue's database is the only one of its server that holds keys."""

import asyncio
import math
import os
import re
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Any

from beeq.errors import RedisRefused
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: For how long a look counts. For so long, messages of a database that has just been filled may be taken for
#: this one's.
FRESH_S = 0.05
#: The server may log each refused command (ACL LOG): a user without the right asks seldom.
_REFUSED_S = 60.0
_DATABASE = re.compile(rb"^db\d+:", re.MULTILINE)


class _Channel:
    """A server's channel: the databases in which this process has opened queues that share it."""

    def __init__(self) -> None:
        self.databases: set[int] = set()


_Channels = weakref.WeakValueDictionary[tuple[Hashable, str], _Channel]

#: By server and name; held weakly.
_channels = _Channels()
_lock = threading.Lock()


def _after_fork() -> None:
    """Replace the state: a thread that the child does not have may hold the lock."""
    global _channels, _lock
    _channels, _lock = _Channels(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Keyspace:
    """One queue's view. Asks Redis only on demand: two short commands in one batch.

    The number of the own database need not be known; a client object, a proxy or SWAPDB may hide it. If one
    database is listed and the queue has keys in its own, that is the one. A server that lists none, hides the
    section or refuses INFO counts as one with several. So does one of which this process itself uses several
    for a queue of that name: that needs no look.
    """

    def __init__(self, pipeline: Pipeline, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys.every()
        self._name = keys.events
        self._channel = _Channel()
        self._is_alone = False
        self._asked_at = -math.inf  # by the monotonic clock
        self._refused_at = -math.inf

    def opened_in(self, server: Hashable, database: int) -> None:
        """Note, before anything is sent to Redis, that a queue of this name is open in this database."""
        with _lock:
            self._channel = _channels.setdefault((server, self._name), _Channel())
            self._channel.databases.add(database)

    @property
    def is_alone(self) -> bool:
        """Whether the last look found no other database; it may be long ago."""
        return self._is_alone and len(self._channel.databases) < 2  # noqa: PLR2004 - one is the own

    @property
    def age_s(self) -> float:
        """How long ago the last look was sent."""
        return time.monotonic() - self._asked_at

    @property
    def may_ask(self) -> bool:
        """Whether to look: the server has not refused a look lately."""
        return time.monotonic() - self._refused_at > _REFUSED_S

    def doubt(self) -> None:
        """Discard the last look: it may have been another server."""
        self._is_alone = False
        self._asked_at = self._refused_at = -math.inf

    async def look(self) -> None:
        """Ask Redis. Raises RedisUnavailable, QueueClosed."""
        asked_at = time.monotonic()
        replies: tuple[Any, Any] = await asyncio.gather(
            self._pipeline.call("INFO", "keyspace", repeatable=True, goes_ahead=True),
            self._pipeline.call("EXISTS", *self._keys, repeatable=True, goes_ahead=True),
            return_exceptions=True,
        )
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, RedisRefused):
                raise reply
        listed, own = replies
        self._asked_at = asked_at
        self._refused_at = asked_at if isinstance(listed, RedisRefused) else -math.inf
        is_one_listed = isinstance(listed, bytes) and len(_DATABASE.findall(listed)) == 1
        self._is_alone = is_one_listed and isinstance(own, int) and own > 0
