"""The bytes of one connection to Redis: packed commands out, replies in, in the order of the commands.

redis-py makes the connection (``connection.py``), with TLS, AUTH and SELECT. From then on its transport
is driven from here, with hiredis for the parsing: the stream, the connection and the client above it
would cost more than Redis itself. A reply is handed over in the very call that reads it.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hiredis

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.redis.urls import redact

T = TypeVar("T")

#: What the parser says when a reply is not complete.
_INCOMPLETE = object()
#: A loop that was blocked has not read yet what came meanwhile: it gets this long to do so.
_LAST_CHANCE_S = 0.01

#: Replies that mean "not here": this is not, or no longer, the server to ask. One that is cut off from the
#: others says CLUSTERDOWN, MASTERDOWN or NOREPLICAS for as long as it is asked; UNBLOCKED ends a blocking
#: command where a master has just become a replica.
NOT_HERE = ("READONLY", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")
#: Redis 6.2 tells of a script's error so, with the error itself at the end.
_BEFORE_THE_ERROR = re.compile(r"\AERR Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)

#: Called once, with the replies of one ``ask``; or with those that had come, and what ended the wire.
OnEnd = Callable[[list[Any], RedisError | None], None]


def pack(*command: Any) -> bytes:
    """Return a command as Redis reads it."""
    return hiredis.pack_command(command)  # type: ignore[no-any-return]  # hiredis ships no types


def settle(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    """Give a future its result, or its error, unless nobody waits for it any more."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class CommandPrefix:
    """The words of a command that are the same each time, packed once."""

    def __init__(self, *words: Any) -> None:
        self._count = len(words)
        packed = pack(*words)
        self._packed = packed[packed.index(b"\n") + 1 :]  # without the count

    def pack(self, words: Sequence[Any]) -> bytes:
        """Return the command that ends with ``words``."""
        rest = hiredis.pack_command(tuple(words))
        return b"*%d\r\n%b%b" % (self._count + len(words), self._packed, rest[rest.index(b"\n") + 1 :])


class _Garbled(Exception):
    """What the peer says is not Redis's protocol."""


class _Ask:
    """Commands that were sent together, and what is known of their replies."""

    __slots__ = ("count", "deadline", "is_overdue", "on_end", "replies")

    def __init__(self, count: int, deadline: float, on_end: OnEnd) -> None:
        self.count = count
        self.deadline = deadline
        self.on_end = on_end
        self.replies: list[Any] = []
        self.is_overdue = False


class RespProtocol(asyncio.Protocol):
    """One connection from the moment it is open until it ends; it does not come back.

    It ends by ``close``; when the peer hangs up; when a reply is late, for then no reply can be matched with
    its command any more; and after a reply that means "not here": the next connection asks again who is the
    master, or owns the slot. Commands under way then fail.

    Writing is not paused when the peer is slow to read: callers wait for their replies, so no more gathers
    than they have at hand anyway.

    The transport of ``writer`` is taken over. ``on_message`` is called with each reply that nobody asked
    for: the messages of a subscription.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, *, on_message: Callable[[Any], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = writer  # it would close its transport when nobody holds it
        self._on_message = on_message
        self._reader = hiredis.Reader(
            protocolError=_Garbled, replyError=self._refused, notEnoughData=_INCOMPLETE
        )
        self._asked: deque[_Ask] = deque()
        self._is_misplaced = False  # the peer has said "not here"
        self._watch: asyncio.TimerHandle | None = None
        #: Done when the wire has ended, with what ended it.
        self.ended: asyncio.Future[RedisError] = self._loop.create_future()
        #: The server's address, as the socket has it.
        self.peer: Any = writer.get_extra_info("peername")
        #: Redis's own id of the connection, once somebody has asked for it; for CLIENT UNBLOCK.
        self.client_id: int | None = None
        self._transport: asyncio.WriteTransport = writer.transport
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return not self.ended.done()

    def send(self, packed: bytes) -> None:
        """Send a command whose reply goes to ``on_message``."""
        if self.is_open:
            self._transport.write(packed)

    def ask(self, packed: Sequence[bytes], on_end: OnEnd, *, timeout_s: float) -> None:
        """Send commands; ``on_end`` is called with one reply for each, an error reply as ``RedisRefused``.

        It is called from the loop, never from here.
        """
        if self.ended.done():
            self._loop.call_soon(on_end, [], self.ended.result())
            return
        deadline = self._loop.time() + timeout_s
        self._asked.append(_Ask(len(packed), deadline, on_end))
        if len(packed) == 1:
            self._transport.write(packed[0])
        else:
            self._transport.writelines(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        """End the wire if the reply that comes next is late; one timer serves all, however many ask."""
        self._watch = None
        if not self._asked:
            return
        first = self._asked[0]
        at = first.deadline
        if at <= self._loop.time():
            if first.is_overdue:
                self.close(RedisUnavailable("Redis did not answer in time"))
                return
            first.is_overdue = True
            at = self._loop.time() + _LAST_CHANCE_S
        self._watch = self._loop.call_at(at, self._look_at_the_clock)

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        """Hand over each reply that is complete."""
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                self._take(reply)
        except _Garbled as error:
            self.close(RedisUnavailable(f"what came is no reply of Redis: {error}"))
        if self._is_misplaced:
            self.close()

    def _refused(self, text: str) -> RedisRefused:
        refused = RedisRefused(redact(_BEFORE_THE_ERROR.sub("", text)))
        self._is_misplaced = self._is_misplaced or refused.code in NOT_HERE
        return refused

    def _take(self, reply: Any) -> None:
        if self._asked:
            ask = self._asked[0]
            ask.replies.append(reply)
            if len(ask.replies) == ask.count:
                self._asked.popleft()
                ask.on_end(ask.replies, None)
        elif self._on_message is not None:
            self._on_message(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is under way."""
        text = "Redis closed the connection" if error is None else redact(str(error))
        self.close(RedisUnavailable(text or type(error).__name__))

    def close(self, reason: RedisError | None = None) -> None:
        """Hang up; commands under way fail with ``reason``. Closing again is fine."""
        if self.ended.done():
            return
        error = reason or RedisUnavailable("the connection was closed")
        self.ended.set_result(error)
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        asked, self._asked = self._asked, deque()
        for ask in asked:
            ask.on_end(ask.replies, error)
