"""Passes on the events that are about jobs of the queue's own database.

A Redis channel spans all databases of a server, and other databases may have queues of the same prefix and
name, with the same ids. No message, of a Node peer or of beeq, names its database. So a message on the
``events`` channel counts only if the queue's own keys agree with it.

* Where the server holds one database, messages are passed on unchecked. Whether it does is looked up
(``Keyspace``: INFO and EXISTS, one batch) when a message comes, at most once in ``FRESH_S`` = 0.05 s; a
queue without messages asks nothing. The first message after a quiet while waits for that look, one round
trip; in steady traffic the next look is made in the background. So another database that is filled just
after a look is noticed 0.05 s later: for so long, once, its outcomes may be accepted here. (Unless this
process has opened a queue of this name there: that is known without a look.)
* Where there are several databases, or where Redis does not say (no right to INFO, nothing listed, the
  queue has no keys), each message is checked by ``lua/check_events.lua``: many messages a call, over the
  queue's pipeline, one call at a time, before the saves that wait there. A result is then heard one round
  trip later. The script's header says what agrees.
* Messages are passed on in the order in which they were heard. While Redis does not answer, they wait: up
to ``MAX_HELD`` and ``MAX_BYTES`` (a larger one alone); beyond that the oldest are dropped, and the ends of
awaited jobs are looked up in the keys (``on_lost``).
* An end is delivered once. A second message of it comes from another database, whose job of that id ended in
the same way. The mark of a run (see the script) distinguishes a retried, or newly added, job.

The keys cannot distinguish: progress and retries of a job that runs in both databases; and the value of a
success recorded by a Node worker, if the other database's message of the same id comes first, but after the
job's end. Where a Node worker has dropped the record, the message counts if a caller here waits for the job,
or its number was given out here. Progress of a waiting job, reported by a process that does not run it, is
not passed on.

The queue's other channels need no check. ``earlierDelayed`` only makes the activator look into its own
keys. ``beeq:cancelled`` carries a claim, whose token no other database has. Another prefix means another
channel, as it means other keys; two pairs of prefix and name that form one channel name form the same keys,
too, and are one queue.
"""

import asyncio
import hashlib
import logging
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, NamedTuple

from beeq.errors import QueueClosed, RedisError, RedisUnavailable
from beeq.logs.records import log_event
from beeq.protocol.events import decode_event
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.keyspace import FRESH_S, Keyspace
from beeq.redis.pipeline import Pipeline
from beeq.redis.retry_delay import RetryDelay

#: The most messages that wait for the check.
MAX_HELD = 10_000
MAX_BYTES = 16_000_000
#: One call checks at most so many messages, and not much more than so many bytes of them.
_AT_ONCE = 100
_BYTES_AT_ONCE = 1_000_000
#: For each message, at most so much of a record is read, and so many running jobs are searched.
_READ_BYTES = 4096
_LONGEST_WALK = 2000
#: How often a server with several databases is checked for whether it still has several.
_LOOK_AGAIN_S = 5.0
#: How many ends are remembered.
_MAX_MARKS = 10_000
_FINAL = ("succeeded", "failed")
#: A message as bee-queue and beeq write it; the group is its data.
_USUAL = re.compile(rb'\{"id":(?:"(?:[^"\\]|\\.)*"|-?\d+),"event":"[^"\\]*"(?:,"data":(.*))?\}', re.DOTALL)
#: Verdicts of ``check_events``.
_AGREES, _NOTHING_LEFT = 1, 2


class _Check(NamedTuple):
    """A message, and the script's arguments for it."""

    message: bytes
    job_id: str
    event: str
    data: bytes


class OwnEvents:
    """One queue's filter between the subscription and the event hub.

    ``deliver`` gets each message that counts; ``is_known`` says whether a caller here waits for a job or
    holds it; ``has_ended``, whether its end was delivered lately. ``spawn`` runs a coroutine in the
    background until the queue closes. ``on_lost`` is called after messages had to be dropped unchecked.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keys: Keys,
        *,
        deliver: Callable[[bytes], object],
        is_known: Callable[[str], bool],
        has_ended: Callable[[str], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        on_lost: Callable[[], object],
        report_error: Callable[[BaseException], object],
    ) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._deliver = deliver
        self._is_known = is_known
        self._has_ended = has_ended
        self._spawn = spawn
        self._on_lost = on_lost
        self._report_error = report_error
        self._keyspace = Keyspace(pipeline, keys)
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._dropped = 0
        self._is_working = False
        self._is_settled = asyncio.Event()  # nothing is held
        self._is_settled.set()
        #: By job and kind of event: the mark of the run whose event was delivered last.
        self._marks: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def opened_in(self, server: Hashable, database: int) -> None:
        """Inform all queues of this name in this process that one is open in this database of a server."""
        self._keyspace.opened_in(server, database)

    def doubt(self) -> None:
        """Look again for other databases: the server may be another one now."""
        self._keyspace.doubt()

    @property
    def is_holding(self) -> bool:
        """Whether messages wait for the check."""
        return bool(self._held)

    async def settled(self) -> None:
        """Return when each message so far was passed on or dropped."""
        await self._is_settled.wait()

    def hear(self, message: bytes) -> None:
        """Take a message of the events channel; pass it on now, or after a check."""
        keyspace = self._keyspace
        if not self._held and keyspace.is_alone:
            age_s = keyspace.age_s
            if age_s < FRESH_S:
                self._deliver(message)
                if age_s > FRESH_S / 2:
                    self._begin()
                return
        self._held.append(message)
        self._held_bytes += len(message)
        while len(self._held) > MAX_HELD or (self._held_bytes > MAX_BYTES and len(self._held) > 1):
            self._take()
            self._dropped += 1
        self._begin()

    def _take(self) -> bytes:
        message = self._held.popleft()
        self._held_bytes -= len(message)
        return message

    def _begin(self) -> None:
        if not self._is_working:
            self._is_working = True
            self._is_settled.clear()
            self._spawn(self._work())

    async def _work(self) -> None:
        """Look, or check, until nothing is held."""
        delay = RetryDelay(100, 5000)
        try:
            while True:
                try:
                    await self._turn()
                except RedisUnavailable:
                    await delay.wait()
                    continue
                except QueueClosed:
                    return
                if not self._held:
                    break
        finally:
            self._is_working = False
            self._is_settled.set()
        if self._dropped:
            what = f"{self._dropped} events were dropped, for Redis did not say whose they are"
            log_event(logging.WARNING, what, queue=self._keys.queue_name)
            self._dropped = 0
            self._on_lost()

    async def _turn(self) -> None:
        keyspace = self._keyspace
        if keyspace.may_ask and keyspace.age_s > (FRESH_S / 2 if keyspace.is_alone else _LOOK_AGAIN_S):
            await keyspace.look()
        if keyspace.is_alone:
            while self._held:
                self._deliver(self._take())
        else:
            await self._check()

    async def _check(self) -> None:
        """Check the oldest messages, and pass on those that the keys agree with."""
        batch: list[bytes] = []
        size_bytes = 0
        while self._held and len(batch) < _AT_ONCE and size_bytes < _BYTES_AT_ONCE:
            batch.append(self._take())
            size_bytes += len(batch[-1])
        checks = [check for check in map(_check_of, batch) if check is not None]
        if not checks:
            return
        # Asked now: while the script's answer is under way, a job of that id may be saved here. It is not the
        # one of which the script found nothing.
        known = [self._is_known(check.job_id) for check in checks]
        try:
            verdicts = await scripts.check_events(
                self._pipeline,
                self._keys,
                read_bytes=_READ_BYTES,
                longest_walk=_LONGEST_WALK,
                events=(check[1:] for check in checks),
            )
        except RedisUnavailable:
            self._held.extendleft(reversed(batch))
            self._held_bytes += size_bytes
            raise
        except RedisError as error:
            self._dropped += len(checks)
            self._report_error(error)
            return
        for check, is_known, verdict, mark in zip(checks, known, verdicts[::2], verdicts[1::2], strict=True):
            if is_known if verdict == _NOTHING_LEFT else self._counts(check, verdict, mark):
                self._deliver(check.message)

    def _counts(self, check: _Check, verdict: int, mark: bytes) -> bool:
        if verdict != _AGREES:
            return False
        if not mark:
            return True
        mark = hashlib.sha256(mark).digest()
        end, is_end = (check.job_id, ""), check.event in _FINAL
        if not is_end and (self._marks.get(end) == mark or self._has_ended(check.job_id)):
            return False  # the end of this run was delivered: this message is another database's
        if not is_end and check.event != "retrying":
            return True
        key = end if is_end else (check.job_id, check.event)
        is_told = self._marks.pop(key, None) == mark
        self._marks[key] = mark
        if len(self._marks) > _MAX_MARKS:
            self._marks.popitem(last=False)
        return not is_told


def _check_of(message: bytes) -> _Check | None:
    """Return the check of a message; None if it cannot be read as an event."""
    event = decode_event(message)
    if event is None:
        return None
    found = _USUAL.fullmatch(message)
    data = b"" if found is None else found[1] or b"null"
    return _Check(message, event.job_id, event.name, data)
