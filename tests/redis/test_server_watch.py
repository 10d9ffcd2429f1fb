"""Connections to a server that is not the master any more, or that is silent, are left, all together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from beeq.errors import RedisSilent
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.masters import server_watch
from beeq.redis.resp import RespProtocol
from tests.redis.scripted_peer import Peer, scripted_peer
from tests.support.proxy import proxy_to
from tests.support.waiting import pause

ANSWERS = {
    b"HELLO": b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nrole\r\n$%d\r\n%b\r\n",
    b"ROLE": b"*1\r\n$%d\r\n%b\r\n",
    b"INFO": b"$%d\r\nrole:%b\r\n",
}


class Role:
    """Answers as a server of this role; some questions it refuses."""

    def __init__(self, role: bytes, *refused: bytes) -> None:
        self.role = role
        self.refused = refused

    def __call__(self, command: list[bytes]) -> bytes:
        """Answer."""
        if command[0] in self.refused:
            return b"-NOPERM this user has no permissions to run it\r\n"
        if command[0] == b"INFO":
            text = b"# Replication\r\nrole:%b\r\nconnected_slaves:0\r\n" % self.role
            return b"$%d\r\n%b\r\n" % (len(text), text)
        if command[0] in ANSWERS:
            role = b"slave" if command[0] == b"ROLE" and self.role == b"replica" else self.role
            return ANSWERS[command[0]] % (len(role), role)
        if command[0] == b"SUBSCRIBE":
            return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(command[1]), command[1])
        return b"+PONG\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Ask twenty times a second; nothing of an earlier test is known."""
    monkeypatch.setattr(server_watch, "_TICK_S", 0.05)
    monkeypatch.setattr(server_watch, "_FRESH_S", 0.045)
    monkeypatch.setattr(server_watch, "_PROBE_S", 0.1)
    monkeypatch.setattr(server_watch.ServerWatch, "_servers", {})


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with scripted_peer() as started:
        started.answer = Role(b"master")
        yield started


def connector_to(peer: Any, *, timeout_ms: int = 5000) -> Connector:
    return Connector(f"redis://127.0.0.1:{peer.port}", timeout_ms=timeout_ms, slot_key="slot")


def hear(_message: Any) -> None:
    """Take a message of a subscription."""


async def asked(peer: Peer, question: bytes, times: int = 1) -> None:
    """Wait until the peer has been asked so often."""
    await peer.until(lambda: [command[0] for command in peer.commands].count(question) >= times)


async def all_end(*resps: RespProtocol) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait([resp.ended for resp in resps])


async def test_a_server_is_asked_over_one_connection(peer):
    begin_s = time.monotonic()
    resps = [await connector_to(peer).connect() for _ in range(5)]
    await asked(peer, b"HELLO", 3)
    elapsed_s = time.monotonic() - begin_s
    assert peer.commands == [[b"HELLO"]] * len(peer.commands)
    assert len(peer.commands) <= 1 + elapsed_s / server_watch._FRESH_S, "asked by each connection"
    assert all(resp.is_open for resp in resps)


async def test_all_connections_to_a_demoted_server_are_left(peer):
    resps = [await connector_to(peer).connect(on_message=on) for on in (None, None, hear)]
    await asked(peer, b"HELLO")
    peer.answer = Role(b"replica")
    await all_end(*resps)
    assert "is a replica now" in str(resps[0].ended.result())


@pytest.mark.parametrize("refused", [[b"HELLO"], [b"HELLO", b"ROLE"]])
async def test_where_hello_is_refused_role_and_info_tell(peer, refused):
    peer.answer = Role(b"master", *refused)
    resp = await connector_to(peer).connect()
    await asked(peer, b"INFO" if b"ROLE" in refused else b"ROLE")
    peer.answer = Role(b"replica", *refused)
    await all_end(resp)


async def test_where_all_is_refused_that_is_said_once(peer, caplog):
    peer.answer = Role(b"master", b"HELLO", b"ROLE", b"INFO")
    resps = [await connector_to(peer).connect() for _ in range(2)]
    await asked(peer, b"PING", 3)
    assert all(resp.is_open for resp in resps)
    assert [record.message[:30] for record in caplog.records] == ["the Redis user may ask 127.0.0"]
    assert [command[0] for command in peer.commands[:3]] == [b"HELLO", b"ROLE", b"INFO"]


async def test_a_proxy_that_hangs_up_on_a_question_is_pinged(peer):
    peer.answer = lambda command: b"+PONG\r\n" if command[0] == b"PING" else None
    for _ in range(2):
        await all_end(await connector_to(peer).connect())
    resp = await connector_to(peer).connect()
    await asked(peer, b"PING", 2)
    assert resp.is_open


async def test_a_url_of_a_replica_is_named_and_left_ever_less_often(peer, caplog, monkeypatch):
    """Somebody may read there; and what it leads to may change."""
    monkeypatch.setattr(server_watch, "_SHORTEST_STAY_S", 0.15)
    peer.answer = Role(b"replica")
    ended_s = []
    for _ in range(3):
        await all_end(await connector_to(peer).connect())
        ended_s.append(time.monotonic())
    assert ended_s[1] - ended_s[0] > 0.14
    assert ended_s[2] - ended_s[1] > 0.29
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"127.0.0.1:{peer.port} is a replica" in caplog.text


async def test_behind_a_proxy_only_what_leads_to_a_replica_ends(peer):
    async with scripted_peer() as other, proxy_to(peer.port) as proxy:
        other.answer = Role(b"master")
        old = [await connector_to(proxy).connect() for _ in range(2)]
        await asked(peer, b"HELLO")
        proxy.lead_to(other.port)
        new = await connector_to(proxy).connect()
        peer.answer = Role(b"replica")
        await all_end(*old)
        await asked(other, b"HELLO", 2)
        assert new.is_open


async def test_all_connections_to_a_silent_server_end_together(peer):
    """One has waited for its reply as long as it may; those that hear channels, or block, wait for none."""
    short, patient = connector_to(peer, timeout_ms=300), connector_to(peer, timeout_ms=60_000)
    events = await short.connect(on_message=hear)
    blocking, other = Connection(short, timeout_ms=300), await patient.connect()
    await blocking.connect()
    peer.answer = lambda _command: b""
    fetch = asyncio.ensure_future(blocking.call("BLMOVE", "a", "b", "RIGHT", "LEFT", 0, patience_ms=60_000))
    caller = Connection(short, timeout_ms=300)
    await caller.connect()
    failures = await asyncio.gather(caller.call("GET", "x"), fetch, return_exceptions=True)
    assert [type(failure) for failure in failures] == [RedisSilent, RedisSilent]
    await all_end(events)
    assert other.is_open, "its own timeout allows for more"
    await blocking.close()


async def test_one_line_cut_off_costs_the_others_nothing(peer):
    """What one connection finds silent is not left by those that are answered."""
    async with proxy_to(peer.port) as proxy:
        resp = await connector_to(proxy, timeout_ms=300).connect()
        blocking = Connection(connector_to(proxy, timeout_ms=300), timeout_ms=300)
        await blocking.connect()
        fetch = asyncio.ensure_future(
            blocking.call("BLMOVE", "a", "b", "RIGHT", "LEFT", 0, patience_ms=60_000)
        )
        peer.answer = lambda command: b"" if command[0] in (b"BLMOVE", b"GET") else Role(b"master")(command)
        cut_off = Connection(connector_to(proxy, timeout_ms=300), timeout_ms=300)
        with pytest.raises(RedisSilent):
            await cut_off.call("GET", "x")
        await asked(peer, b"HELLO", len(peer.commands) + 5)
        assert resp.is_open
        assert blocking.is_connected
        fetch.cancel()
        await asyncio.wait([fetch])


async def test_another_threads_connections_are_left_too(peer):
    """Its loop asks nothing while this one does."""
    ended = threading.Event()

    async def stay() -> None:
        resp = await connector_to(peer).connect()
        connected.set()
        await asyncio.wait([resp.ended], timeout=10)
        ended.set()

    connected = threading.Event()
    here = await connector_to(peer).connect()
    await asked(peer, b"HELLO")
    thread = threading.Thread(target=asyncio.run, args=(stay(),))
    thread.start()
    await asyncio.to_thread(connected.wait, 10)
    peer.answer = Role(b"replica")
    await all_end(here)
    assert await asyncio.to_thread(ended.wait, 10)
    await asyncio.to_thread(thread.join, 10)


async def test_a_blocked_loop_is_stood_in_for(peer):
    """The other loop's connection asks, and is left by itself."""
    may_go_on, ended = threading.Event(), threading.Event()
    connected = threading.Event()

    async def block() -> None:
        resp = await connector_to(peer).connect()
        connected.set()
        assert may_go_on.wait(10)
        resp.close()
        ended.set()

    thread = threading.Thread(target=asyncio.run, args=(block(),))
    thread.start()
    try:
        await asyncio.to_thread(connected.wait, 10)
        here = await connector_to(peer).connect()
        await asked(peer, b"HELLO")
        peer.answer = Role(b"replica")
        await all_end(here)
    finally:
        may_go_on.set()
        await asyncio.to_thread(thread.join, 10)


async def test_nothing_is_asked_where_nobody_is_connected(peer):
    resp = await connector_to(peer).connect()
    watch = server_watch.ServerWatch.here()
    await asked(peer, b"HELLO")
    resp.close()
    await pause(0)
    assert watch._timer is None
    assert watch._lines == {}


async def test_a_connection_that_ends_while_asked_says_nothing(peer):
    """Another one is asked, and stays."""
    peer.answer = lambda _command: b""
    resp, other = [await connector_to(peer).connect() for _ in range(2)]
    await asked(peer, b"HELLO")
    resp.close()
    await asked(peer, b"HELLO", 2)
    assert other.is_open
