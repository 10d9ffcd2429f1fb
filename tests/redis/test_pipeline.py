"""A line that many callers share: what goes out together, what is tried again, and that each call ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from beeq.errors import QueueClosed, RedisRefused, RedisUnavailable
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline
from beeq.redis.resp import pack
from tests.redis.scripted_peer import Peer, scripted_peer
from tests.support.waiting import eventually


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with scripted_peer() as peer:
        peer.answer = echo
        yield peer


@pytest.fixture
async def shared(peer: Peer) -> AsyncIterator[Pipeline]:
    shared = Pipeline(peer.connector(), timeout_ms=5000)
    yield shared
    await shared.close()


def echo(command: list[bytes]) -> bytes:
    """Answer ECHO with its word, everything else with PONG."""
    return b"+%b\r\n" % (command[1] if command[0] == b"ECHO" else b"PONG")


def once(said: bytes | None, to: bytes = b"ECHO") -> Callable[[list[bytes]], bytes | None]:
    """Answer the first command of this name with ``said`` (None: hang up), the others as usual."""
    was_said = False

    def answer(command: list[bytes]) -> bytes | None:
        nonlocal was_said
        if was_said or command[0] != to:
            return echo(command)
        was_said = True
        return said

    return answer


@pytest.fixture
async def writes(shared: Pipeline) -> list[list[bytes]]:
    """The commands of each write on the connection that is made herewith."""
    wire = await connected(shared)
    write, written = wire.ask_each, []

    def written_down(packed: list[bytes], *arguments: Any, **options: Any) -> None:
        written.append(list(packed))
        write(packed, *arguments, **options)

    wire.ask_each = written_down
    return written


async def connected(shared: Pipeline) -> Any:
    await shared.connect()
    return await shared._connection.connect()


def echoes(*words: str) -> list[bytes]:
    return [pack("ECHO", word) for word in words]


async def within(awaitable: Any, seconds: float = 5) -> Any:
    """Return what comes of it, which may be an error, in time: nothing may wait for ever."""
    return (await asyncio.wait_for(asyncio.gather(awaitable, return_exceptions=True), seconds))[0]


async def test_calls_of_one_turn_of_the_loop_go_out_in_one_write(shared, writes):
    calls = [shared.call("ECHO", word) for word in "abc"]
    assert await asyncio.gather(*calls) == [b"a", b"b", b"c"]
    assert writes == [echoes("a", "b", "c")]


async def test_calls_made_while_a_reply_is_awaited_go_together_next(shared, writes, peer):
    peer.answer = lambda _command: b""
    calls = [asyncio.ensure_future(shared.call("ECHO", "first"))]
    await peer.until(lambda: [b"ECHO", b"first"] in peer.commands)
    for word in "abc":
        calls.append(asyncio.ensure_future(shared.call("ECHO", word)))
        await asyncio.sleep(0)
    assert writes == [echoes("first")]
    peer.answer = echo
    peer.say(b"+first\r\n")
    assert await asyncio.gather(*calls) == [b"first", b"a", b"b", b"c"]
    assert writes == [echoes("first"), echoes("a", "b", "c")]


async def test_a_call_that_goes_ahead_waits_for_one_batch_only(shared, writes, peer):
    peer.answer = lambda _command: b""
    calls = [asyncio.ensure_future(shared.call("ECHO", "first"))]
    await peer.until(lambda: [b"ECHO", b"first"] in peer.commands)
    large = ["a" * 1_000_001, "b" * 1_000_001]  # each goes alone
    for word, goes_ahead in ((large[0], False), (large[1], False), ("ahead", True)):
        calls.append(asyncio.ensure_future(shared.call("ECHO", word, goes_ahead=goes_ahead)))
        await asyncio.sleep(0)
    peer.answer = echo
    peer.say(b"+first\r\n")
    await asyncio.gather(*calls)
    assert writes == [echoes("first"), echoes("ahead"), echoes(large[0]), echoes(large[1])]


async def test_calls_before_the_first_connection_go_together_over_it(shared, peer):
    assert await asyncio.gather(*(shared.call("ECHO", word) for word in "abc")) == [b"a", b"b", b"c"]
    assert (peer.dialled, len(peer.commands)) == (1, 3)


async def test_a_repeatable_call_whose_reply_was_lost_is_tried_again(shared, peer):
    await shared.connect()
    peer.answer = once(None)
    assert await within(shared.call("ECHO", "read", repeatable=True)) == b"read"
    assert peer.commands.count([b"ECHO", b"read"]) == 2
    assert peer.dialled == 2


async def test_a_call_with_a_lost_reply_is_repeated_only_if_it_may_be(shared, peer):
    await shared.connect()
    peer.answer = once(None, to=b"INCR")
    writes, reads = shared.call("INCR", "n"), shared.call("ECHO", "read", repeatable=True)
    lost, read = await asyncio.gather(within(writes), within(reads))
    assert isinstance(lost, RedisUnavailable)
    assert read == b"read"
    assert peer.commands.count([b"INCR", b"n"]) == 1


async def test_a_call_is_given_up_after_three_tries(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: None
    lost = await within(shared.call("ECHO", "read", repeatable=True))
    assert isinstance(lost, RedisUnavailable)
    assert peer.commands.count([b"ECHO", b"read"]) == 3
    peer.answer = echo
    assert await within(shared.call("ECHO", "next")) == b"next"


@pytest.mark.parametrize(
    ("refusal", "connections"),
    [(b"-LOADING not yet\r\n", 1), (b"-READONLY replica\r\n", 2), (b"-MOVED 7 127.0.0.1:1\r\n", 2)],
    ids=["LOADING", "READONLY", "MOVED"],
)
async def test_unexecuted_calls_are_tried_again_where_they_may_run(shared, peer, refusal, connections):
    """Also a call that is not repeatable; the one that was answered beside it is not sent again."""
    await shared.connect()
    peer.answer = once(refusal, to=b"INCR")
    calls = shared.call("INCR", "n"), shared.call("ECHO", "beside")
    assert await asyncio.gather(*map(within, calls)) == [b"PONG", b"beside"]
    assert peer.commands.count([b"INCR", b"n"]) == 2
    assert peer.commands.count([b"ECHO", b"beside"]) == 1
    assert peer.dialled == connections


async def test_a_refusal_for_good_is_its_callers_at_once(shared, peer):
    peer.answer = once(b"-OOM command not allowed\r\n", to=b"INCR")
    refused, beside = await asyncio.gather(within(shared.call("INCR", "n")), within(shared.call("ECHO", "x")))
    assert isinstance(refused, RedisRefused)
    assert refused.code == "OOM"
    assert beside == b"x"
    assert peer.commands.count([b"INCR", b"n"]) == 1


async def test_a_reply_is_told_while_those_behind_it_are_awaited(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    first, second = (asyncio.create_task(shared.call("ECHO", word)) for word in "ab")
    await peer.until(lambda: len(peer.commands) == 3)
    peer.say(b"+a\r\n")
    assert await within(first) == b"a"
    third = asyncio.create_task(shared.call("ECHO", "c"))
    await asyncio.sleep(0)
    assert not second.done()
    peer.answer = echo
    peer.say(b"+b\r\n")
    assert [await within(second), await within(third)] == [b"b", b"c"]


async def test_a_reply_that_came_counts_though_the_connection_breaks(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    first, second = (asyncio.create_task(shared.call("INCR", word)) for word in "ab")
    await peer.until(lambda: len(peer.commands) == 3)
    peer.say(b":1\r\n")
    assert await within(first) == 1
    peer.hang_up()
    assert isinstance(await within(second), RedisUnavailable)


async def test_a_call_that_cannot_be_packed_fails_alone(shared, writes):
    ends: list[tuple[Any, Any]] = []

    def cannot() -> bytes:
        raise TypeError("no bytes")

    calls = [asyncio.ensure_future(shared.call("ECHO", "a"))]
    await asyncio.sleep(0)  # the deferred call is not the first
    shared.defer(scripts.add_jobs, cannot, lambda reply, error: ends.append((reply, error)))
    calls.append(asyncio.ensure_future(shared.call("ECHO", "b")))
    with pytest.raises(TypeError):
        await shared.call("ECHO", object())
    assert await asyncio.gather(*calls) == [b"a", b"b"]
    assert [(reply, str(error)) for reply, error in ends] == [(None, "no bytes")]


async def test_a_callback_of_an_unpackable_call_may_make_another(shared):
    await shared.connect()
    second: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def cannot() -> bytes:
        raise TypeError("no bytes")

    def ask_anew(_reply: Any, _error: Any) -> None:
        shared.defer(
            scripts.add_jobs, lambda: pack("ECHO", "anew"), lambda reply, _: second.set_result(reply)
        )

    shared.defer(scripts.add_jobs, cannot, ask_anew)
    assert await within(second) == b"anew"
    assert await within(shared.call("ECHO", "next")) == b"next"


async def test_who_cannot_take_his_reply_keeps_nobody_from_theirs(shared):
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def cannot(reply: Any, _error: Any) -> None:
        raise ValueError(reply)

    before = asyncio.ensure_future(shared.call("ECHO", "before"))
    await asyncio.sleep(0)
    shared.defer(scripts.add_jobs, lambda: pack("ECHO", "odd"), cannot)
    behind = asyncio.ensure_future(shared.call("ECHO", "behind"))
    assert [await within(before), await within(behind)] == [b"before", b"behind"]
    assert await within(shared.call("ECHO", "next")) == b"next"
    assert [str(context["exception"]) for context in reported] == ["b'odd'"]


async def test_a_cancelled_caller_takes_nothing_from_the_others(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    leaves, stays = (asyncio.create_task(shared.call("ECHO", word)) for word in "ab")
    await peer.until(lambda: len(peer.commands) == 3)
    leaves.cancel()
    peer.say(b"+a\r\n+b\r\n")
    assert await within(stays) == b"b"
    assert leaves.cancelled()
    peer.answer = echo
    assert await within(shared.call("ECHO", "c")) == b"c"
    assert peer.dialled == 1


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("is_connected", [False, True])
async def test_a_close_ends_each_call_and_leaves_no_connection(shared, peer, is_connected, turns, repeatable):
    """A call that was just asked for, one that connects, one that is under way, and one behind it."""
    if is_connected:
        await shared.connect()
    peer.answer = lambda _command: b""
    calls = [asyncio.ensure_future(shared.call("ECHO", "first", repeatable=repeatable))]
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    calls.append(asyncio.ensure_future(shared.call("ECHO", "second", repeatable=repeatable)))
    await asyncio.sleep(0)
    await shared.close()
    for call in calls:
        assert isinstance(await within(call), QueueClosed)
    peer.answer = echo
    dialled = peer.dialled
    assert isinstance(await within(shared.call("ECHO", "late")), QueueClosed)
    await peer.until(lambda: peer.open_count == 0)
    assert peer.dialled == dialled
    assert [b"ECHO", b"second"] not in peer.commands


async def test_a_close_in_the_turn_of_a_call_sends_nothing_more(shared, peer):
    ends: list[tuple[str, Any, str]] = []

    def ask(word: str) -> Any:
        return shared.defer(
            scripts.add_jobs,
            lambda: pack("ECHO", word),
            lambda reply, error: ends.append((word, reply, str(error))),
        )

    ask("before")
    await shared.close()
    assert ends == [("before", None, "closed")]
    ask("after")
    await eventually(lambda: len(ends) == 2)
    assert ends[1:] == [("after", None, "closed")]
    assert peer.commands == []


async def test_a_closed_call_that_was_sent_is_said_to_be_unknown(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    sent = asyncio.ensure_future(shared.call("INCR", "n"))
    await peer.until(lambda: [b"INCR", b"n"] in peer.commands)
    unsent = asyncio.ensure_future(shared.call("INCR", "m"))
    await asyncio.sleep(0)
    await shared.close()
    assert "unknown" in (await within(sent)).__notes__[0]
    assert not hasattr(await within(unsent), "__notes__")


async def test_a_close_between_two_tries_ends_the_call(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: None
    call = asyncio.ensure_future(shared.call("ECHO", "read", repeatable=True))
    await peer.until(lambda: peer.open_count == 0)
    await shared.close()
    assert isinstance(await within(call), QueueClosed)


async def test_closing_twice_is_fine_and_so_is_closing_unused(peer):
    unused, used = (Pipeline(peer.connector(), timeout_ms=5000) for _ in range(2))
    await unused.close()
    await used.connect()
    await asyncio.gather(used.close(), used.close())
    await peer.until(lambda: peer.open_count == 0)
    for shared in (unused, used):
        assert isinstance(await within(shared.call("ECHO", "late")), QueueClosed)


async def test_a_cancelled_close_is_final_all_the_same(shared, peer):
    call = asyncio.ensure_future(shared.call("ECHO", "first"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing = asyncio.create_task(shared.close())
    await asyncio.sleep(0)
    closing.cancel()
    assert isinstance(await within(call), (QueueClosed, bytes))
    assert isinstance(await within(shared.call("ECHO", "late")), QueueClosed)


# A cancelled caller's call.


async def note_of(call: asyncio.Future[Any]) -> str:
    """Cancel the call; return what its CancelledError says."""
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await call
    (note,) = cancelled.value.__notes__
    return note


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_call_cancelled_before_it_is_sent_is_withdrawn(shared, peer, turns):
    await shared.connect()
    call = asyncio.ensure_future(shared.call("INCR", "n"))
    beside = asyncio.ensure_future(shared.call("ECHO", "beside"))
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns:
        assert "nothing was done" in await note_of(call)
    else:
        call.cancel()
    assert await within(beside) == b"beside"
    assert [b"INCR", b"n"] not in peer.commands


async def test_a_call_cancelled_behind_a_batch_is_withdrawn(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    first = asyncio.ensure_future(shared.call("ECHO", "first"))
    await peer.until(lambda: [b"ECHO", b"first"] in peer.commands)
    call = asyncio.ensure_future(shared.call("INCR", "n"))
    last = asyncio.ensure_future(shared.call("ECHO", "last"))
    await asyncio.sleep(0)
    assert "nothing was done" in await note_of(call)
    peer.answer = echo
    peer.say(b"+first\r\n")
    assert [await within(first), await within(last)] == [b"first", b"last"]
    assert [b"INCR", b"n"] not in peer.commands


async def test_a_call_cancelled_while_connecting_is_withdrawn(shared, peer):
    call = asyncio.ensure_future(shared.call("INCR", "n"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert "nothing was done" in await note_of(call)
    assert await within(shared.call("ECHO", "next")) == b"next"
    assert [b"INCR", b"n"] not in peer.commands


async def test_a_call_cancelled_between_two_tries_is_withdrawn(shared, peer):
    await shared.connect()
    peer.answer = once(b"-LOADING not yet\r\n", to=b"INCR")
    call = asyncio.ensure_future(shared.call("INCR", "n"))
    beside = asyncio.ensure_future(shared.call("ECHO", "beside"))
    assert await within(beside) == b"beside"  # so the other has been refused
    assert "nothing was done" in await note_of(call)
    assert await within(shared.call("ECHO", "next")) == b"next"
    assert peer.commands.count([b"INCR", b"n"]) == 1


async def test_a_cancelled_call_that_was_sent_is_said_to_be_unknown(shared, peer):
    await shared.connect()
    peer.answer = lambda _command: b""
    call = asyncio.ensure_future(shared.call("INCR", "n"))
    await peer.until(lambda: [b"INCR", b"n"] in peer.commands)
    assert "unknown" in await note_of(call)


async def test_a_deferred_call_that_nobody_wants_is_not_sent(shared, peer):
    await shared.connect()
    ends: list[Any] = []
    shared.defer(scripts.add_jobs, lambda: b"", lambda *end: ends.append(end))
    assert await within(shared.call("ECHO", "next")) == b"next"
    assert ends == []
