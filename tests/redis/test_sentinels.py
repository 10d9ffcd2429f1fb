"""What Sentinels say of a new master is followed, by every connection, at once; by scripted Sentinels."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from beeq.errors import RedisUnavailable
from beeq.redis.connector import Connector
from beeq.redis.masters import fleet as fleets
from beeq.redis.masters import sentinels, server_watch
from beeq.redis.masters.fleet import Fleet, Sentinels
from tests.redis.scripted_peer import Peer, scripted_peer
from tests.support.breaking import WAYS, Breaker
from tests.support.waiting import eventually

A, B, C = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)


def array(*items: Any) -> bytes:
    """Return a reply."""
    parts = (item if item[:1] == b"*" else b"$%d\r\n%b\r\n" % (len(item), item) for item in items)
    return b"*%d\r\n%b" % (len(items), b"".join(parts))


class Said:
    """What one Sentinel answers."""

    def __init__(self, master: Peer) -> None:
        self.master = master
        self.promoted: Peer | None = None
        self.epoch = 1
        self.may_subscribe = True
        self.speaks_resp3 = False  # with redis-py's own Sentinel client

    def __call__(self, command: list[bytes]) -> bytes:
        """Answer."""
        facts = self._facts()
        said = b"+PONG\r\n"
        match command:
            case [b"HELLO", b"3", *_]:
                self.speaks_resp3 = True
            case [b"SENTINEL", b"MASTERS"] if self.speaks_resp3:
                said = b"*1\r\n" + array(*facts).replace(b"*%d" % len(facts), b"%%%d" % (len(facts) // 2), 1)
            case [b"SENTINEL", b"MASTERS"]:
                said = array(array(*facts))
            case [b"SENTINEL", b"MASTER", _]:
                said = array(*facts)
            case [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", _]:
                said = array(b"127.0.0.1", b"%d" % (self.promoted or self.master).port)
            case [b"SUBSCRIBE", _] if not self.may_subscribe:
                said = b"-NOPERM this user has no permissions to run the 'subscribe' command\r\n"
            case [b"SUBSCRIBE", channel]:
                said = b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
        return said

    def _facts(self) -> list[bytes]:
        facts = {
            "name": "mymaster",
            "ip": "127.0.0.1",
            "port": self.master.port,
            "flags": "master",
            "num-other-sentinels": 0,
            "config-epoch": self.epoch,
        }
        return [str(each).encode() for fact in facts.items() for each in fact]


def is_subscribed(sentinel: Peer, times: int = 1) -> bool:
    return sentinel.commands.count([b"SUBSCRIBE", b"+failover-state-wait-promotion"]) >= times


def message(channel: bytes, text: str) -> bytes:
    return array(b"message", channel, text.encode())


def switch(old: Peer, new: Peer) -> bytes:
    return message(b"+switch-master", f"mymaster 127.0.0.1 {old.port} 127.0.0.1 {new.port}")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch) -> None:
    """Nothing of an earlier test is known."""
    monkeypatch.setattr(Fleet, "_fleets", {})


@pytest.fixture
async def peers() -> AsyncIterator[tuple[Peer, Peer, Peer]]:
    """A Sentinel, its master, and the next master."""
    async with AsyncExitStack() as started:
        sentinel, old, new = [await started.enter_async_context(scripted_peer()) for _ in range(3)]
        sentinel.answer = Said(old)
        old.answer = new.answer = lambda _command: b"+PONG\r\n"
        yield sentinel, old, new


@pytest.fixture
async def connector(peers) -> AsyncIterator[Connector]:
    made = connector_to(peers[0])
    yield made
    await made.close()


def connector_to(*its_sentinels: Peer, timeout_ms: int = 5000) -> Connector:
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in its_sentinels)
    return Connector(f"redis+sentinel://{hosts}/mymaster", timeout_ms=timeout_ms, slot_key="slot")


async def ended(*resps: Any) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait([resp.ended for resp in resps])


def hear(_message: Any) -> None:
    """Take a message of a subscription."""


async def test_a_switch_leads_every_connection_to_the_new_master(peers, connector):
    """Although the Sentinel that is asked for the master still names the old one."""
    sentinel, old, new = peers
    resps = [await connector.connect(on_message=on) for on in (None, None, hear)]
    await sentinel.until(lambda: is_subscribed(sentinel))
    sentinel.publish(switch(old, new))
    await ended(*resps)
    assert str(resps[0].ended.result()) == f"127.0.0.1:{new.port} is the master of mymaster now"
    resp = await connector.connect()
    assert resp.peer[1] == new.port
    assert connector.switches == 1


async def test_who_was_promoted_is_followed_before_the_failover_ends(peers, connector):
    sentinel, old, new = peers
    resp = await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel))
    promoted = f"slave 127.0.0.1:{new.port} 127.0.0.1 {new.port} @ mymaster 127.0.0.1 {old.port}"
    sentinel.publish(message(b"+promoted-slave", promoted))
    await ended(resp)
    resp = await connector.connect()
    sentinel.publish(switch(old, new))
    sentinel.publish(message(b"+switch-master", "another 10.0.0.1 1 10.0.0.2 1"))
    sentinel.publish(message(b"+switch-master", "of another shape"))
    sentinel.publish(message(b"+promoted-slave", "of another shape"))
    sentinel.answer.promoted = new
    sentinel.hang_up()
    await sentinel.until(lambda: is_subscribed(sentinel, 2))
    assert resp.is_open
    assert connector.switches == 1


async def test_who_is_about_to_be_promoted_is_asked_itself(peers, connector):
    """It is the master a second before the Sentinel notices."""
    sentinel, old, new = peers
    answers = {b"HELLO": b"-NOPERM no\r\n", b"ROLE": array(b"slave"), b"PING": b"+PONG\r\n"}
    new.answer = lambda command: answers[command[0]]
    resp = await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel))
    reported = f"slave 127.0.0.1:{new.port} 127.0.0.1 {new.port} @ mymaster 127.0.0.1 {old.port}"
    sentinel.publish(message(b"+failover-state-wait-promotion", reported))
    await new.until(lambda: new.commands.count([b"ROLE"]) > 1)
    assert resp.is_open
    answers[b"ROLE"] = array(b"master")
    await ended(resp)
    assert (await connector.connect()).peer[1] == new.port


async def test_a_switch_ends_a_dial_that_hangs_at_the_old_master(peers):
    sentinel, old, new = peers
    connector = connector_to(sentinel, timeout_ms=60_000)
    old.is_frozen = True
    dialling = asyncio.ensure_future(connector.connect())
    await old.until(lambda: old.dialled > 0)
    await sentinel.until(lambda: is_subscribed(sentinel))
    sentinel.publish(switch(old, new))
    async with asyncio.timeout(5):
        resp = await dialling
    assert resp.peer[1] == new.port
    await connector.close()


async def test_a_switch_that_was_missed_is_asked_for(peers, connector):
    sentinel, _old, new = peers
    resp = await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel))
    sentinel.answer.master, sentinel.answer.epoch = new, 2
    sentinel.hang_up()
    await ended(resp)
    assert (await connector.connect()).peer[1] == new.port


async def test_a_failover_under_way_is_seen_by_who_comes_late(peers, connector):
    """Asked for all it knows, a Sentinel names the old master until the failover is over."""
    sentinel, _old, new = peers
    sentinel.answer.promoted = new
    resp = await connector.connect()
    if resp.peer[1] != new.port:
        await ended(resp)
    assert (await connector.connect()).peer[1] == new.port


async def test_a_sentinel_that_lets_nobody_subscribe_is_asked(peers, connector, monkeypatch, caplog):
    monkeypatch.setattr(sentinels, "_ASK_AGAIN_S", 0.02)
    sentinel, _old, new = peers
    sentinel.answer.may_subscribe = False
    resp = await connector.connect()
    question = [b"SENTINEL", b"MASTER", b"mymaster"]
    await sentinel.until(lambda: sentinel.commands.count(question) > 2)
    sentinel.answer.master, sentinel.answer.epoch = new, 2
    await ended(resp)
    assert len([record for record in caplog.records if "lets nobody subscribe" in record.message]) == 1


async def test_a_sentinel_that_tells_no_more_than_it_must_is_heard(peers, connector, monkeypatch):
    """The user there may neither subscribe nor see all of the master."""
    monkeypatch.setattr(sentinels, "_ASK_AGAIN_S", 0.02)
    sentinel, _old, new = peers
    said, refusal = sentinel.answer, b"-NOPERM this user has no permissions to run it\r\n"
    sentinel.answer = lambda command: refusal if command[:2] == [b"SENTINEL", b"MASTER"] else said(command)
    said.may_subscribe = False
    resp = await connector.connect()
    question = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"mymaster"]
    await sentinel.until(lambda: sentinel.commands.count(question) > 2)
    said.master = new
    await ended(resp)
    assert (await connector.connect()).peer[1] == new.port


async def test_a_sentinel_that_falls_silent_is_dialled_again(peers, connector, monkeypatch):
    monkeypatch.setattr(sentinels, "_PING_AFTER_S", 0.02)
    monkeypatch.setattr(sentinels, "_ANSWER_S", 0.1)
    sentinel, _old, _new = peers
    await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel) and [b"PING"] in sentinel.commands)
    answer, sentinel.answer = sentinel.answer, lambda _command: b""
    dialled = sentinel.dialled
    await sentinel.until(lambda: sentinel.dialled > dialled)
    sentinel.answer = answer
    await sentinel.until(lambda: is_subscribed(sentinel, 2))


@pytest.mark.parametrize("way", WAYS)
async def test_a_listener_that_breaks_is_back_and_hears(peers, connector, monkeypatch, caplog, way):
    monkeypatch.setattr(sentinels, "_MOST_SILENT_LOOKS", 3)
    monkeypatch.setattr(sentinels, "_PING_AFTER_S", 0.02)  # a sign of life
    monkeypatch.setattr(server_watch, "_TICK_S", 0.05)
    breaker = Breaker(monkeypatch, sentinels.SentinelListener, "run")
    sentinel, old, new = peers
    resp = await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel))
    breaker.break_it(way)
    await sentinel.until(lambda: is_subscribed(sentinel, 2))
    assert "a Sentinel's listener ended" in caplog.text
    sentinel.publish(switch(old, new))
    await ended(resp)
    assert (await connector.connect()).peer[1] == new.port


async def test_every_sentinel_is_heard_and_a_late_one_ignored(peers):
    """Of two, the first is down and comes back; the second one's news of yesterday leads nobody back."""
    sentinel, old, new = peers
    async with scripted_peer() as second:
        second.answer = Said(old)
        connector = connector_to(sentinel, second)
        resp = await connector.connect()
        await second.until(lambda: is_subscribed(second))
        await sentinel.until(lambda: is_subscribed(sentinel))
        sentinel.publish(switch(old, new))
        await ended(resp)
        resp = await connector.connect()
        second.publish(switch(old, new))
        second.hang_up()
        await second.until(lambda: is_subscribed(second, 2))  # and it still names the old master
        assert resp.is_open
        assert (await connector.connect()).peer[1] == new.port
        await connector.close()


async def test_all_queues_of_a_process_share_what_is_heard(peers):
    sentinel, old, new = peers
    connectors = [connector_to(sentinel) for _ in range(5)]
    resps = [await connector.connect() for connector in connectors]
    await sentinel.until(lambda: is_subscribed(sentinel))
    sentinel.publish(switch(old, new))
    await ended(*resps)
    for connector in connectors:
        await connector.close()
    assert sentinel.commands.count([b"SUBSCRIBE", b"+switch-master"]) == 1
    await sentinel.until(lambda: sentinel.open_count == 0)


async def test_another_loop_listens_while_one_is_blocked(peers, monkeypatch):
    """A handler may block its loop for a minute; the heartbeat's loop, or another queue's, goes on."""
    monkeypatch.setattr(fleets, "_LEASE_S", 0.1)
    sentinel, old, new = peers
    is_blocked, may_go_on = threading.Event(), threading.Event()

    async def block() -> None:
        blocked = connector_to(sentinel)
        resp = await blocked.connect()
        await eventually(lambda: is_subscribed(sentinel))
        is_blocked.set()
        assert may_go_on.wait(10)
        await ended(resp)
        await blocked.close()

    thread = asyncio.ensure_future(asyncio.to_thread(asyncio.run, block()))
    await eventually(is_blocked.is_set)  # it listens before it is connected to the old master
    connector = connector_to(sentinel)
    resp = await connector.connect()
    await sentinel.until(lambda: is_subscribed(sentinel, 2))
    sentinel.publish(switch(old, new))
    await ended(resp)
    may_go_on.set()
    await thread
    await connector.close()


async def test_no_sentinel_answers_and_the_error_says_so(peers, connector):
    sentinel, _old, _new = peers
    sentinel.answer = lambda _command: None
    with pytest.raises(RedisUnavailable):
        await connector.connect()


# What a process knows.


async def nobody(_address: Any) -> Any:
    raise AssertionError("there is no server")


def fleet() -> Fleet:
    return Fleet.of(Sentinels("mymaster", {}, nobody))


def test_what_was_just_heard_is_dialled_and_repeated_by_nobody():
    known = fleet()
    assert known.switched(A, B, is_over=True)
    assert known.fresh_address == B
    assert not known.switched(A, B, is_over=True)
    assert known.switched(B, C, is_over=True)
    assert not known.switched(A, B, is_over=True), "a slow Sentinel says it"
    assert known.fresh_address == C


def test_a_promoted_server_is_dialled_until_sentinels_name_it(monkeypatch):
    now_s = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    known = fleet()
    assert known.switched(A, B, is_over=False)
    now_s += 60
    assert known.fresh_address == B, "other replicas take their time to follow it"
    assert known.switched(A, B, is_over=True), "a connection may have been made to the old one meanwhile"
    assert known.switches == 1
    now_s += 6
    assert known.fresh_address is None


def test_what_was_wrong_is_dialled_no_more():
    known = fleet()
    known.switched(A, B, is_over=True)
    known.is_wrong(A)
    assert known.fresh_address == B
    known.is_wrong(B)
    assert known.fresh_address is None


def test_a_sentinel_that_was_cut_off_is_not_believed():
    known = fleet()
    assert not known.learn_master(A, 0), "the first one asked may be cut off"
    assert known.learn_master(B, 5)
    assert not known.learn_master(A, 3)
    assert not known.learn_master(A, 5)
    assert known.switched(B, C, is_over=True)
    assert not known.learn_master(B, 5)


def test_one_loop_listens_until_it_ends():
    known, one, other = fleet(), object(), object()
    assert known.may_listen(one)
    assert not known.may_listen(other)
    assert known.may_listen(one)
    known.ends_listening(other)
    assert not known.may_listen(other)
    known.ends_listening(one)
    assert known.may_listen(other)
