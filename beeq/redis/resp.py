"""The bytes of one connection to Redis: packed commands out, replies in, in the order of the commands.

redis-py makes the connection (``connector.py``), with TLS, AUTH and SELECT. From then on this module drives
its transport and parses with hiredis: redis-py's stream, connection and client would cost more time than
Redis itself. A reply is handed over in the call that reads it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, TypeVar

import hiredis

from beeq.errors import RedisError, RedisRefused, RedisSilent, RedisUnavailable
from beeq.redis.error_codes import NOT_HERE, coded
from beeq.redis.rights import advice_on
from beeq.redis.urls import redact

T = TypeVar("T")

#: What the parser says when a reply is not complete.
_INCOMPLETE = object()
#: A longer command gets more time, as if the network carried this much: the progress of data in the buffers
#: of the kernel and of proxies cannot be seen.
_LONG_BYTES = 65_536
_LEAST_BYTES_PER_S = 250_000
#: A loop that was blocked has not read yet what has arrived: it gets this long to do so.
_LAST_CHANCE_S = 0.01

#: After this reply a server hangs up: commands sent behind it are not executed.
_HANGS_UP = "Protocol error"

#: Called once with the replies to one ``ask``; or with those so far, and what ended the connection.
OnEnd = Callable[[list[Any], RedisError | None], None]
#: Called with each reply to one ``ask_each``; with None and the error if the connection ended before the
#: last.
OnReply = Callable[[Any, RedisError | None], None]


def pack(*command: Any) -> bytes:
    """Return a command as Redis reads it."""
    return hiredis.pack_command(command)  # type: ignore[no-any-return]  # hiredis ships no types


def settle(future: asyncio.Future[T], result: T, error: Exception | None) -> None:
    """Give a future its result, or its error, unless it is done (cancelled)."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Marked(dict[int, bytes]):
    """Numbers with a mark in front, as a command has them; common ones are prepared, others made."""

    def __init__(self, form: bytes) -> None:
        super().__init__((number, form % number) for number in range(1024))
        self._form = form

    def __missing__(self, number: int) -> bytes:
        return self._form % number


_COUNTS, _LENGTHS = _Marked(b"*%d"), _Marked(b"$%d")
#: What each part of a command ends with.
_END = b"\r\n"


class CommandPrefix:
    """The words of a command that are the same each time, packed once."""

    def __init__(self, *words: Any) -> None:
        self._count = len(words)
        packed = pack(*words)
        self._packed = packed[packed.index(b"\n") + 1 : -len(_END)]  # without the count

    def pack(self, words: Sequence[bytes]) -> bytes:
        """Return the command that ends with ``words``."""
        if len(words) == 1:
            word = words[0]
            return _END.join((_COUNTS[self._count + 1], self._packed, _LENGTHS[len(word)], word, b""))
        # Count, prefix, then length and word by turns: a third of the time that hiredis takes for many words.
        parts = [b""] * (3 + 2 * len(words))
        parts[0] = _COUNTS[self._count + len(words)]
        parts[1] = self._packed
        parts[2:-1:2] = map(_LENGTHS.__getitem__, map(len, words))
        parts[3:-1:2] = words
        return _END.join(parts)


class _Garbled(Exception):
    """The peer's bytes are not Redis's protocol."""


class _Ask:
    """Commands that were sent together, and their replies so far."""

    __slots__ = ("asked_at", "is_overdue", "left", "on_end", "replies", "timeout_s")

    def __init__(
        self, count: int, asked_at: float, timeout_s: float, on_end: OnReply, replies: list[Any] | None
    ) -> None:
        self.left = count  # missing replies
        self.asked_at = asked_at
        self.timeout_s = timeout_s
        self.on_end = on_end
        self.replies = replies  # replies so far; None: each is delivered as it comes
        self.is_overdue = False


class RespProtocol(asyncio.Protocol):
    """One connection from the moment it is open until it ends; it does not come back.

    It ends by ``close``; when the peer hangs up; when a reply is late, because replies can then no longer be
    matched with commands; after a reply that means "not here", because the next connection looks up the
    master or the slot's owner again; and after a reply that the peer follows by hanging up. Commands under
    way then fail. Only silence makes a reply late: a long command that is still being sent, and a long reply
    that is still arriving, may take their time.

    Writing is not paused when the peer is slow to read: callers wait for their replies, which bounds what
    gathers.

    Takes over the transport of ``writer``. ``on_message`` is called with each reply that answers no command:
    the messages of a subscription.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, *, on_message: Callable[[Any], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = writer  # it would close its transport when garbage-collected
        self._on_message = on_message
        self._reader = hiredis.Reader(
            protocolError=_Garbled, replyError=self._refused, notEnoughData=_INCOMPLETE
        )
        self._asked: deque[_Ask] = deque()
        self._is_leaving = False  # the peer has said "not here", or is about to hang up
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0  # when bytes last came
        self._given_bytes = 0  # to the transport, in all …
        self._sent_bytes = 0  # … and by it to the socket, when last looked at
        #: Whether the connection is open, as far as is known.
        self.is_open = True
        #: Returns an error reply with its code first.
        self.meaning_of: Callable[[str], str] = coded
        #: Done when the connection has ended, with what ended it.
        self.ended: asyncio.Future[RedisError] = self._loop.create_future()
        #: The server's address, as the socket has it.
        self.peer: Any = writer.get_extra_info("peername")
        #: Redis's own id of the connection, for CLIENT UNBLOCK; None until ``learn_client_id``.
        self.client_id: int | None = None
        self._transport: asyncio.WriteTransport = writer.transport
        self._transport.set_protocol(self)

    @property
    def heard_at(self) -> float:
        """When bytes last came, by the loop's clock; 0.0 if none have."""
        return self._heard_at

    @property
    def is_subscribed(self) -> bool:
        """Whether it receives the messages of a subscription: such a connection takes no other command."""
        return self._on_message is not None

    @property
    def longest_wait_s(self) -> float:
        """The longest timeout of the commands under way; 0.0 if there are none."""
        return max((ask.timeout_s for ask in self._asked), default=0.0)

    def send(self, packed: bytes) -> None:
        """Send a command whose reply goes to ``on_message``."""
        if self.is_open:
            self._transport.write(packed)

    def ask_each(self, packed: Sequence[bytes], on_reply: OnReply, *, timeout_s: float) -> None:
        """Send commands as ``ask`` does; ``on_reply`` gets each reply as it comes.

        If a reply says that this is the wrong server, the last one is delivered after the connection was
        closed.
        """
        self.ask(packed, on_reply, timeout_s=timeout_s, is_each=True)

    def ask(
        self, packed: Sequence[bytes], on_end: OnReply, *, timeout_s: float, is_each: bool = False
    ) -> None:
        """Send commands; ``on_end`` is called with one reply for each, an error reply as ``RedisRefused``.

        ``timeout_s`` is how long Redis may be silent; a long command gets more. ``on_end`` is called from the
        loop, never from here. ``is_each`` is for ``ask_each``.
        """
        replies: list[Any] | None = None if is_each else []
        if not self.is_open:
            self._loop.call_soon(on_end, replies, self.ended.result())
            return
        now = self._loop.time()
        count = len(packed)
        size_bytes = len(packed[0]) if count == 1 else sum(map(len, packed))
        if size_bytes > _LONG_BYTES:
            timeout_s += size_bytes / _LEAST_BYTES_PER_S
        self._given_bytes += size_bytes
        self._asked.append(_Ask(count, now, timeout_s, on_end, replies))
        if count == 1:
            self._transport.write(packed[0])
        else:
            self._transport.writelines(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(now + timeout_s, self._look_at_the_clock, context=Context())

    def end_writing(self) -> bool:
        """Close the writing side; replies still come until the peer hangs up. Return False if it cannot."""
        if not (self.is_open and self._transport.can_write_eof()):
            return False
        self._transport.write_eof()
        return True

    def _look_at_the_clock(self) -> None:
        """End the connection if the next reply is late; one timer serves all commands.

        It runs in an empty context: otherwise it would keep the first caller's for as long as others ask.
        """
        self._watch = None
        if not self._asked:
            return
        first, now = self._asked[0], self._loop.time()
        at = max(first.asked_at, self._heard_at) + first.timeout_s
        if at > now:
            first.is_overdue = False
        elif self._has_sent_more():
            at = now + first.timeout_s
        elif first.is_overdue:
            self.close(RedisSilent("Redis did not answer in time"))
            return
        else:
            first.is_overdue = True
            at = now + _LAST_CHANCE_S
        self._watch = self._loop.call_at(at, self._look_at_the_clock, context=Context())

    def _has_sent_more(self) -> bool:
        """Return whether a long command is being sent: there is more to send, and the peer has taken some."""
        to_send_bytes = self._transport.get_write_buffer_size()
        before, self._sent_bytes = self._sent_bytes, self._given_bytes - to_send_bytes
        return to_send_bytes > 0 and self._sent_bytes > before

    # Callbacks of the transport.

    def data_received(self, data: bytes) -> None:
        """Hand over each reply that is complete."""
        self._heard_at = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                self._take(reply)
        except _Garbled as error:
            self.close(RedisUnavailable(f"this is not a reply of Redis: {error}"))
        if self._is_leaving:
            self.close()

    def _refused(self, text: str) -> RedisRefused:
        refused = RedisRefused(redact(self.meaning_of(text) + advice_on(text)))
        self._is_leaving = self._is_leaving or refused.code in NOT_HERE or _HANGS_UP in text
        return refused

    def _take(self, reply: Any) -> None:
        if not self._asked:
            if self._on_message is not None:
                self._on_message(reply)
            return
        ask = self._asked[0]
        ask.left -= 1
        if ask.replies is not None:
            ask.replies.append(reply)
            reply = ask.replies
        if not ask.left:
            self._asked.popleft()
            if self._is_leaving:
                self.close()  # before a callback asks more
        elif ask.replies is not None:
            return
        try:
            ask.on_end(reply, None)
        except Exception as defect:  # noqa: BLE001 - a reply of another shape, …
            self._report(defect)  # a failing callback fails alone, and the others get their replies

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is under way."""
        text = "Redis closed the connection" if error is None else redact(str(error))
        self.close(RedisUnavailable(text or type(error).__name__))

    def close(self, reason: RedisError | None = None) -> None:
        """Hang up; commands under way fail with ``reason``. Closing again is fine."""
        if not self.is_open:
            return
        self.is_open = False
        error = reason or RedisUnavailable("the connection was closed")
        self.ended.set_result(error)
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        asked, self._asked = self._asked, deque()
        for ask in asked:
            try:
                ask.on_end(ask.replies, error)
            except Exception as defect:  # noqa: BLE001 - as above
                self._report(defect)

    def _report(self, defect: Exception) -> None:
        self._loop.call_exception_handler({"message": "a reply could not be taken", "exception": defect})
