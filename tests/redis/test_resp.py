"""One connection's promises: replies in order, each ask ends once, and a wire that has ended lets go of everything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop

from beeq.errors import QueueClosed, RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.pubsub import Subscriber
from beeq.redis.resp import CommandPrefix, RespProtocol, pack
from tests.redis.scripted_peer import Peer, scripted_peer
from tests.support.queues import unwatched_duties
from tests.support.waiting import eventually, pause

PING = (pack("PING"),)


class End:
    """Hears how one ask ends; ``await end.reply()`` or look at ``replies`` and ``error``."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.error: RedisError | None = None
        self.times = 0
        self._over = asyncio.Event()

    def __call__(self, replies: list[Any], error: RedisError | None) -> None:
        self.replies, self.error = replies, error
        self.times += 1
        self._over.set()

    async def over(self) -> End:
        await asyncio.wait_for(self._over.wait(), 30)
        return self


class Ends:
    """A wire, and the socket at its other end, which the test holds in its hands."""

    def __init__(self, wire: RespProtocol, peer: socket.socket, messages: list[Any]) -> None:
        self.wire = wire
        self.peer = peer
        self.messages = messages

    def ask(self, *packed: bytes, timeout_s: float = 5) -> End:
        end = End()
        self.wire.ask(packed or PING, end, timeout_s=timeout_s)
        return end

    async def ended(self) -> RedisError:
        return await asyncio.wait_for(asyncio.shield(self.wire.ended), 5)


@contextlib.asynccontextmanager
async def both_ends() -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    _reader, writer = await asyncio.open_connection(sock=ours)
    messages: list[Any] = []
    with theirs:
        ends = Ends(RespProtocol(writer, on_message=messages.append), theirs, messages)
        yield ends
        ends.wire.close()
        await asyncio.sleep(0)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with both_ends() as ends:
        yield ends


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with scripted_peer() as peer:
        yield peer


@pytest.fixture
async def line(peer: Peer) -> AsyncIterator[Connection]:
    line = Connection(peer.connector(), timeout_ms=5000)
    yield line
    await line.close()


REPLIES = (
    b"+OK\r\n$4\r\n\r\n\r\n\r\n-ERR it's wrong\r\n*3\r\n:1\r\n$-1\r\n*1\r\n-WRONGTYPE inside\r\n:7\r\n*0\r\n"
)


def plain(reply: Any) -> Any:
    """Return a reply as something that can be compared."""
    if isinstance(reply, RedisRefused):
        return reply.code, str(reply)
    return [plain(part) for part in reply] if isinstance(reply, list) else reply


def pieces_of(stream: bytes) -> Iterator[list[bytes]]:
    """Yield the stream cut at each place once, and then at all of them."""
    for at in range(len(stream) + 1):
        yield [stream[:at], stream[at:]]
    yield [stream[at : at + 1] for at in range(len(stream))]


async def test_replies_are_given_in_order_wherever_the_stream_is_cut(ends):
    wrong, inside = ("ERR", "ERR it's wrong"), ("WRONGTYPE", "WRONGTYPE inside")
    for pieces in pieces_of(REPLIES):
        asked = [ends.ask(*PING), ends.ask(*PING * 3), ends.ask(*PING), ends.ask(*PING)]
        for piece in pieces:
            ends.wire.data_received(piece)
        assert [plain(end.replies) for end in asked] == [
            [b"OK"],
            [b"\r\n\r\n", wrong, [1, None, [inside]]],
            [7],
            [[]],
        ]
        assert [(end.error, end.times) for end in asked] == [(None, 1)] * 4
    assert ends.messages == []


@pytest.mark.parametrize(
    ("reported", "meant"),
    [
        (
            "ERR Error running script (call to f_abc): @user_script:7: @user_script: 7: -READONLY You can't write.",
            "READONLY You can't write.",
        ),
        ("ERR Error running script (call to f_abc): @user_script:7: no", None),
        ("OOM of Error running script: -READONLY", None),
    ],
)
async def test_an_error_inside_a_script_of_redis_6_is_named_by_itself(ends, reported, meant):
    end = ends.ask(*PING)
    ends.wire.data_received(f"-{reported}\r\n".encode())
    assert str(end.replies[0]) == (meant or reported)


async def test_who_cannot_take_a_reply_keeps_nobody_from_theirs(ends):
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reported.append(context["exception"])
    )
    defects = [ZeroDivisionError("a reply"), ZeroDivisionError("the end")]

    def ask_defectively(defect: Exception) -> None:
        def on_end(_replies: list[Any], _error: RedisError | None) -> None:
            raise defect

        ends.wire.ask(PING, on_end, timeout_s=5)

    ask_defectively(defects[0])
    answered = ends.ask()
    ask_defectively(defects[1])
    left = ends.ask()
    ends.wire.data_received(b"+ONE\r\n+TWO\r\n")
    assert (answered.replies, answered.error) == ([b"TWO"], None)
    ends.wire.close()
    assert (left.replies, left.times) == ([], 1)
    assert reported == defects


async def test_a_reply_is_given_out_only_when_its_ask_is_complete(ends):
    end = ends.ask(*PING * 2)
    ends.wire.data_received(b"+one\r\n+tw")
    assert end.times == 0
    ends.wire.data_received(b"o\r\n")
    assert end.replies == [b"one", b"two"]


LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_bytes_the_socket_refuses_follow_later_in_order(loop_factory):
    large = [pack("SET", name * 1_000_000, name * 3_000_000) for name in "ab"]

    async def ask_a_peer_that_does_not_read() -> None:
        async with both_ends() as ends:
            asked = [ends.ask(large[0], *PING), ends.ask(), ends.ask(large[1]), ends.ask()]
            expected = b"".join([large[0], *PING * 2, large[1], *PING])
            received = await asyncio.to_thread(read_exactly, ends.peer, len(expected))
            assert received == expected
            ends.peer.sendall(b"+OK\r\n+PONG\r\n" * 2 + b"+PONG\r\n")
            assert [(await end.over()).error for end in asked] == [None] * 4

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(ask_a_peer_that_does_not_read())


def read_exactly(peer: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += peer.recv(1_000_000)
    return bytes(received)


@pytest.mark.more_rights("asks for a key of no queue")
async def test_a_thousand_commands_at_once_are_answered_in_order(valkey):
    connector = Connector(valkey.url, timeout_ms=5000, slot_key="slot")
    wire = await connector.connect()
    numbers = [End() for _ in range(500)]
    errors = [End() for _ in range(500)]
    for n, (number, error) in enumerate(zip(numbers, errors, strict=True)):
        wire.ask((pack("ECHO", n), pack("ECHO", "x" * n)), number, timeout_s=5)
        wire.ask((pack("NO-SUCH-COMMAND"),), error, timeout_s=5)
    assert [(await end.over()).replies for end in numbers] == [[b"%d" % n, b"x" * n] for n in range(500)]
    assert {(await end.over()).replies[0].code for end in errors} == {"ERR"}
    assert wire.is_open
    wire.close()
    await asyncio.sleep(0)


def test_a_command_with_a_packed_prefix_equals_one_packed_whole():
    first, rest = ("EVALSHA", "ab", 2, "ключ", 1.5), (b"\r\n\x00", b"", b"x" * 5000)
    for count in range(len(rest) + 1):
        assert CommandPrefix(*first).pack(rest[:count]) == pack(*first, *rest[:count])


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-7\r\n", b"*x\r\n", b"\x00\xff\x00\xff", b":12a\r\n"]
)
async def test_malformed_replies_end_the_wire_and_fail_all_under_way(ends, garbage):
    answered, first, second = ends.ask(), ends.ask(), ends.ask()
    ends.peer.sendall(b"+PONG\r\n" + garbage)
    error = await ends.ended()
    assert isinstance(error, RedisUnavailable)
    assert str(error).startswith("this is not a reply of Redis")
    assert answered.replies == [b"PONG"]
    assert [(end.error, end.times) for end in (first, second)] == [(error, 1)] * 2
    assert ends.peer.recv(1000) == PING[0] * 3
    await asyncio.sleep(0)
    assert ends.peer.recv(1) == b""


async def test_a_late_reply_ends_the_wire_and_is_taken_for_no_other(ends):
    late, next_ = ends.ask(timeout_s=0.02), ends.ask(timeout_s=5)
    assert str((await late.over()).error) == "Redis did not answer in time"
    assert next_.error is late.error
    assert not ends.wire.is_open
    later = ends.ask()
    with contextlib.suppress(OSError):
        ends.peer.sendall(b"+late\r\n")
    assert (await later.over()).error is late.error


async def test_half_a_reply_is_late_too(ends):
    end = ends.ask(*PING * 2, timeout_s=0.02)
    ends.peer.sendall(b"+PONG\r\n+PO")
    assert str((await end.over()).error) == "Redis did not answer in time"


async def test_each_ask_has_its_own_timeout_and_idle_silence_is_free(ends):
    assert ends.ask(timeout_s=0.02).times == 0
    ends.wire.data_received(b"+PONG\r\n")
    patient = ends.ask(timeout_s=5)
    await pause(0.1)  # past the first one's time, and its last chance
    assert ends.wire.is_open
    ends.peer.sendall(b"+PONG\r\n")
    assert (await patient.over()).replies == [b"PONG"]


@LOOPS
def test_a_loop_blocked_beyond_the_timeout_still_takes_replies(loop_factory):
    def ask_and_block(ends: Ends) -> list[End]:
        asked = [ends.ask(timeout_s=0.02) for _ in range(2)]
        ends.peer.sendall(b"+one\r\n+two\r\n")
        time.sleep(0.05)
        return asked

    async def block_a_task_and_a_reader() -> None:
        async with both_ends() as ends:
            asked = ask_and_block(ends)
            assert [(await end.over()).replies for end in asked] == [[b"one"], [b"two"]]
            # uvloop calls readers last and timers first: the timer comes before what came meanwhile.
            asked.clear()
            ends.wire.ask(PING, lambda _replies, _error: asked.extend(ask_and_block(ends)), timeout_s=0.02)
            ends.peer.sendall(b"+now\r\n")
            await eventually(lambda: asked)
            assert [(await end.over()).replies for end in asked] == [[b"one"], [b"two"]]
            assert ends.wire.is_open

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(block_a_task_and_a_reader())


@pytest.mark.parametrize("end_it", ["close", "hang up"])
async def test_asking_an_ended_wire_fails_from_the_loop_only(ends, end_it):
    if end_it == "close":
        ends.wire.close(RedisRefused("NOAUTH no"))
    else:
        ends.peer.close()
    error = await ends.ended()
    end = ends.ask()
    assert end.times == 0
    assert (await end.over()).error is error
    assert end.times == 1
    ends.wire.send(PING[0])  # is no error either


async def test_closing_fails_what_is_under_way_and_may_be_repeated(ends):
    asked = [ends.ask(), ends.ask(*PING * 3)]
    ends.wire.data_received(b"+PONG\r\n+PONG\r\n")
    reason = RedisUnavailable("enough")
    ends.wire.close(reason)
    ends.wire.close(RedisUnavailable("again"))
    ends.wire.connection_lost(None)
    answered, cut = [(end.replies, end.error, end.times) for end in asked]
    assert answered == ([b"PONG"], None, 1)
    assert cut == ([b"PONG"], reason, 1)  # the replies so far are delivered
    assert await ends.ended() is reason
    ends.wire.data_received(b"+late\r\n")
    assert asked[1].times == 1


async def test_a_wire_that_is_closed_without_a_reason_says_that_it_was(ends):
    end = ends.ask()
    ends.wire.close()
    assert str(end.error) == "the connection was closed"


async def test_a_peer_that_hangs_up_fails_what_is_under_way(ends):
    answered, lost = ends.ask(), ends.ask()
    assert ends.peer.recv(1000) == PING[0] * 2  # with bytes unread it would be a reset
    ends.peer.sendall(b"+PONG\r\n+half a")
    ends.peer.close()
    assert str(await ends.ended()) == "Redis closed the connection"
    assert answered.replies == [b"PONG"]
    assert lost.error is await ends.ended()


async def test_a_connection_that_breaks_says_how_and_tells_no_password(ends):
    end = ends.ask()
    ends.wire.connection_lost(OSError("broken at redis://me:secret@host:6379"))
    assert isinstance(end.error, RedisUnavailable)
    assert "broken at" in str(end.error)
    assert "secret" not in str(end.error)


async def test_unrequested_messages_go_to_on_message_in_order(ends):
    end = ends.ask()
    ends.wire.send(pack("SUBSCRIBE", "c"))
    ends.wire.data_received(
        b"+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n-ERR\r\n"
    )
    assert end.replies == [b"PONG"]
    assert [plain(message) for message in ends.messages] == [
        [b"subscribe", b"c", 1],
        [b"message", b"c", b"hi"],
        ("ERR", "ERR"),
    ]


async def test_whoever_hears_a_reply_may_ask_again_and_may_close(ends):
    """From within the call that reads: nothing is given out twice, or to another."""
    ends_of: list[End] = []

    def ask_again(_replies: list[Any], _error: RedisError | None) -> None:
        ends_of.append(ends.ask())

    ends.wire.ask(PING, ask_again, timeout_s=5)
    behind = ends.ask()
    ends.wire.data_received(b"+first\r\n+behind\r\n+again\r\n")
    assert behind.replies == [b"behind"]
    assert ends_of[0].replies == [b"again"]

    ends.wire.ask(PING, lambda _replies, _error: ends.wire.close(), timeout_s=5)
    behind = ends.ask()
    ends.wire.data_received(b"+closes\r\n+nobody's\r\n")
    assert (behind.replies, str(behind.error), behind.times) == ([], "the connection was closed", 1)


async def test_whoever_hears_that_the_wire_has_ended_may_ask_again(ends):
    heard: list[str] = []

    def ask_again(_replies: list[Any], error: RedisError | None) -> None:
        heard.append(str(error))
        if len(heard) < 3:
            ends.wire.ask(PING, ask_again, timeout_s=5)

    ends.wire.ask(PING, ask_again, timeout_s=5)
    ends.wire.close()
    assert len(heard) == 1
    await eventually(lambda: len(heard) == 3)
    assert set(heard) == {"the connection was closed"}


def end_by_close(ends: Ends) -> None:
    ends.wire.close()


def end_by_hanging_up(ends: Ends) -> None:
    ends.peer.close()


def end_by_garbage(ends: Ends) -> None:
    ends.peer.sendall(b"garbage\r\n")


def end_by_silence(_ends: Ends) -> None:
    """Nothing is said."""


@pytest.mark.more_rights("asks for a key of no queue")
@pytest.mark.parametrize("end_it", [end_by_close, end_by_hanging_up, end_by_garbage, end_by_silence])
async def test_a_wire_that_has_ended_leaves_no_socket_and_no_timer(end_it: Callable[[Ends], None]):
    with warnings.catch_warnings(record=True) as warned:
        gc.collect()  # what others have left is not this wire's
        warnings.simplefilter("always")
        warned.clear()
        async with both_ends() as ends:
            ends.ask(timeout_s=0.01 if end_it is end_by_silence else 5)
            transport: Any = ends.wire._transport
            ours = transport.get_extra_info("socket")
            end_it(ends)
            await ends.ended()
            await asyncio.sleep(0)
            assert ours.fileno() == -1
            assert ends.wire._watch is None or ends.wire._watch.cancelled()
        del ends, transport, ours
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


# The line: one wire after another.


async def test_a_line_dials_when_it_is_first_used_and_once_for_all(line, peer):
    peer.answer = lambda command: b"+%b\r\n" % command[1]
    calls = [line.call("ECHO", word) for word in "abc"]
    assert await asyncio.gather(*calls) == [b"a", b"b", b"c"]
    assert peer.dialled == 1


async def test_an_error_reply_is_one_among_the_others(line, peer):
    peer.answer = lambda command: b"-ERR no\r\n" if command[1] == b"b" else b"+%b\r\n" % command[1]
    replies = await line.request([pack("ECHO", word) for word in "abc"])
    assert [plain(reply) for reply in replies] == [b"a", ("ERR", "ERR no"), b"c"]
    with pytest.raises(RedisRefused, match="ERR no"):
        await line.call("ECHO", "b")
    assert peer.dialled == 1


async def test_a_cancelled_exchange_reconnects_for_the_next_call(line, peer):
    peer.answer = lambda command: b"" if command[0] == b"GET" else b"+PONG\r\n"
    cancelled, beside = (asyncio.create_task(line.call("GET", word)) for word in "ab")
    await peer.until(lambda: len(peer.commands) == 2)
    cancelled.cancel()
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(beside, 5)
    assert cancelled.cancelled()
    assert await asyncio.wait_for(line.call("PING"), 5) == b"PONG"
    assert peer.dialled == 2
    await peer.until(lambda: peer.open_count == 1)


async def test_a_cancelled_connect_leaves_no_connection(line, peer):
    for turns in range(12):
        connecting = asyncio.create_task(line.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting], timeout=5)
        await line.close()
    peer.answer = lambda _command: b"+PONG\r\n"
    assert await asyncio.wait_for(line.call("PING"), 5) == b"PONG"
    await peer.until(lambda: peer.open_count == 1)


async def test_a_peer_that_hangs_up_costs_its_calls_and_no_later_one(line, peer):
    peer.answer = lambda command: None if command[0] == b"QUIT" else b"+PONG\r\n"
    with pytest.raises(RedisUnavailable):
        await asyncio.wait_for(line.call("QUIT"), 5)
    assert not line.is_connected
    assert await asyncio.wait_for(line.call("PING"), 5) == b"PONG"


async def test_a_silent_peer_costs_its_calls_and_no_later_one(peer):
    line = Connection(peer.connector(), timeout_ms=20)
    with pytest.raises(RedisUnavailable, match="did not answer in time"):
        await asyncio.wait_for(line.call("PING"), 5)
    with pytest.raises(RedisUnavailable, match="did not answer in time"):
        await asyncio.wait_for(line.call("PING", patience_ms=20), 5)
    assert peer.dialled == 2
    await line.close()
    await peer.until(lambda: peer.open_count == 0)


@pytest.mark.parametrize(
    ("refusal", "dialled"),
    [("READONLY", 2), ("MOVED", 2), ("ASK", 2), ("LOADING", 1), ("OOM", 1), ("NOSCRIPT", 1)],
)
@pytest.mark.parametrize("way", ["exchange", "ask"])
async def test_only_a_not_here_reply_ends_the_connection(line, peer, refusal, dialled, way):
    await line.connect()
    peer.answer = lambda _command: b"-%b some words\r\n" % refusal.encode()
    if way == "exchange":
        replies = await asyncio.wait_for(line.request(PING), 5)
    else:
        end = End()
        line.ask(PING, end)
        replies = (await end.over()).replies
    assert replies[0].code == refusal
    peer.answer = lambda _command: b"+PONG\r\n"
    assert await asyncio.wait_for(line.call("PING"), 5) == b"PONG"
    assert peer.dialled == dialled


async def test_a_closed_line_fails_what_is_under_way_and_dials_anew(line, peer):
    under_way = asyncio.create_task(line.call("PING"))
    await peer.until(lambda: peer.commands != [])
    await line.close()
    await line.close()
    with pytest.raises(RedisUnavailable, match="the connection was closed"):
        await under_way
    await peer.until(lambda: peer.open_count == 0)
    peer.answer = lambda _command: b"+PONG\r\n"
    assert await asyncio.wait_for(line.call("PING"), 5) == b"PONG"


async def test_the_id_of_a_connection_is_known_while_it_stands(line, peer):
    peer.answer = lambda _command: b":42\r\n"
    assert line.client_id is None
    await line.learn_client_id()
    assert line.client_id == 42
    await line.close()
    assert line.client_id is None


# The subscriber: a wire that is asked for nothing, and hears messages.


class Hearing:
    """A subscriber of a peer, and what it has heard."""

    def __init__(self, peer: Peer) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.subscribed: list[str] = []
        self.errors: list[BaseException] = []
        self.subscriber = Subscriber(
            peer.connector(),
            on_message=lambda channel, message: self.messages.append((channel, message)),
            on_subscribed=self.subscribed.append,
            on_error=self.errors.append,
            duties=unwatched_duties(self.errors.append),
        )


@pytest.fixture
async def hearing(peer: Peer) -> AsyncIterator[Hearing]:
    hearing = Hearing(peer)
    yield hearing
    await hearing.subscriber.close()
    await peer.until(lambda: peer.open_count == 0)


def confirm(command: list[bytes]) -> bytes:
    """Answer SUBSCRIBE as Redis does."""
    confirmed = (b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(name), name) for name in command[1:])
    return b"".join(confirmed)


def message_on(channel: bytes, text: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(text), text)


@pytest.mark.parametrize("fault", ["hangs up", "garbage", "refusal", "wrong shape"])
async def test_a_subscriber_comes_back_after_whatever_its_peer_does(hearing, peer, fault):
    peer.answer = confirm
    await hearing.subscriber.add("one", timeout_ms=5000)
    await hearing.subscriber.add("two", timeout_ms=5000)
    before = len(hearing.subscribed)
    if fault == "hangs up":
        peer.hang_up()
    else:
        peer.say({"garbage": b"?!\r\n", "refusal": b"-ERR odd\r\n", "wrong shape": b":1\r\n"}[fault])
    await eventually(lambda: len(hearing.subscribed) == before + 2)
    assert set(hearing.subscribed[before:]) == {"one", "two"}
    assert peer.commands[-2:] == [[b"SUBSCRIBE", b"one"], [b"SUBSCRIBE", b"two"]]
    assert len(hearing.errors) == 1
    assert isinstance(hearing.errors[0], RedisRefused if fault == "refusal" else RedisUnavailable)
    peer.say(message_on(b"two", b"hi"))
    await eventually(lambda: hearing.messages == [("two", b"hi")])
    await peer.until(lambda: peer.open_count == 1)


async def test_a_refused_subscription_is_tried_ever_less_often(hearing, peer):
    """It was confirmed once, and nobody waits for it; the other channels are heard meanwhile."""
    peer.answer = confirm
    await hearing.subscriber.add("channel", timeout_ms=5000)
    await hearing.subscriber.add("other", timeout_ms=5000)
    hearing.subscribed.clear()
    peer.answer = lambda command: b"-NOPERM no\r\n" if command[-1] == b"channel" else confirm(command)
    peer.hang_up()
    await eventually(lambda: hearing.subscribed == ["other"])
    hearing.errors.clear()
    first_ms = hearing.subscriber.retry_delay.next_ms
    await eventually(lambda: len(hearing.errors) >= 3)
    assert hearing.subscriber.retry_delay.next_ms >= 4 * first_ms > 0
    assert {type(error) for error in hearing.errors} == {RedisRefused}
    dialled = peer.dialled
    peer.answer = confirm
    await eventually(lambda: hearing.subscribed == ["other", "channel"])
    assert peer.dialled == dialled
    assert hearing.subscriber.retry_delay.next_ms <= first_ms


async def test_a_refused_channel_is_its_callers_at_once_by_name(hearing, peer):
    peer.answer = lambda command: b"-NOPERM no\r\n" if command[-1] == b"one" else confirm(command)
    adding = [
        asyncio.ensure_future(hearing.subscriber.add(name, timeout_ms=60_000)) for name in ("one", "two")
    ]
    refused, confirmed = await asyncio.wait_for(asyncio.gather(*adding, return_exceptions=True), 5)
    assert isinstance(refused, RedisRefused)
    assert "&one " in str(refused)
    assert confirmed is None
    assert hearing.subscribed == ["two"]
    peer.answer = confirm
    await hearing.subscriber.add("one", timeout_ms=5000)
    assert (peer.dialled, hearing.errors) == (1, [])


async def test_who_adds_a_channel_hears_of_the_close_at_once(hearing, peer):
    adding = asyncio.ensure_future(hearing.subscriber.add("one", timeout_ms=60_000))
    await peer.until(lambda: peer.commands != [])
    await hearing.subscriber.close()
    for call in (adding, hearing.subscriber.add("one", timeout_ms=60_000)):
        with pytest.raises(QueueClosed):
            await asyncio.wait_for(call, 5)


@pytest.mark.parametrize("turns", range(1, 12))
async def test_whenever_a_subscriber_is_closed_it_leaves_no_connection(hearing, peer, turns):
    peer.answer = confirm
    adding = asyncio.create_task(hearing.subscriber.add("channel", timeout_ms=100))
    for _ in range(turns):
        await asyncio.sleep(0)
    await hearing.subscriber.close()
    await asyncio.wait([adding], timeout=5)
    adding.cancelled() or adding.exception()
    assert not hearing.subscriber.has("channel")
