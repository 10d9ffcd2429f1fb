"""Asks each connected server for its role once a second, and drops connections to one that is not the master.

One command a second goes to each server, over the oldest connection to it: behind a proxy that has switched
servers, the oldest is the first to lead to the old one. One event loop asks for all; if it is blocked,
another takes over.

All connections to a server learn together. When one finds it silent, the others are asked at once; if none
gets an answer, all are dropped, each after the silence that its own timeout allows. When one finds a replica
where a master was, the others are asked too, and only those that find a replica are dropped: a proxy may lead
the others elsewhere.

Connections to an address that leads to a replica again and again are dropped ever less often: it may be
wanted for reading, and a name may lead elsewhere at last. A write there is refused with READONLY, and
reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Hashable
from contextvars import Context
from typing import Any

from beeq.errors import RedisError, RedisSilent, RedisUnavailable
from beeq.redis.masters.fleet import Address, Fleet, Sentinels
from beeq.redis.masters.roles import PING, QUESTIONS, Role, is_refused, role_in
from beeq.redis.masters.sentinels import SentinelListener
from beeq.redis.resp import RespProtocol, pack

logger = logging.getLogger("beeq")

#: How often each server is asked.
_TICK_S = 1.0
#: A question that another loop asked counts if it is not older than this.
_FRESH_S = 0.9 * _TICK_S
#: How long the others may take to answer, once one connection has found the server silent.
_PROBE_S = 1.0
#: A loop that was blocked has not read yet what has arrived: it gets this long to do so.
_LAST_CHANCE_S = 0.01
#: How long connections to an address that leads to a replica again and again are kept, at first and at last.
_SHORTEST_STAY_S, _LONGEST_STAY_S = 1.0, 60.0
#: The roles of so many servers are remembered; of more, only while there are connections to them.
_MOST_SERVERS = 100
#: A server that hung up so often when asked, and never answered, gets PING only: some proxies hang up.
_MOST_HANG_UPS = 2


class _ServerFacts:
    """What the process knows of the server, or the proxy, at one address; shared by all loops."""

    def __init__(self) -> None:
        self.question = 0  # index into ``QUESTIONS``: the earlier ones were refused
        self.hang_ups = 0  # when asked
        self.asked_at_s = self.answered_at_s = -math.inf
        #: How long connections to it are kept though it is a replica; 0: it was not known to be one.
        self.stays_s = 0.0
        self.leave_at_s = 0.0
        self.is_said = False  # logged: it is a replica, or does not state its role


class _WatchedLine:
    """One connection, as it was made."""

    __slots__ = ("fleet", "is_asked", "named", "peer", "resp", "timeout_s")

    def __init__(
        self, resp: RespProtocol, *, timeout_s: float, fleet: Fleet | None, named: Address | None
    ) -> None:
        self.resp = resp
        self.peer: Hashable = resp.peer
        self.timeout_s = timeout_s
        self.fleet = fleet
        self.named = named  # the server's address, as a Sentinel has it
        self.is_asked = False

    @property
    def can_be_asked(self) -> bool:
        """Whether it can answer at once: it is not subscribed to a channel, and does not block."""
        return not self.resp.is_subscribed and self.resp.longest_wait_s <= self.timeout_s

    @property
    def address(self) -> Address | None:
        """The server's address, as the socket has it; None for a Unix socket."""
        return self.peer[:2] if isinstance(self.peer, tuple) else None

    @property
    def where(self) -> str:
        """The server, for a message."""
        address = self.named or self.address
        return str(self.peer) if address is None else f"{address[0]}:{address[1]}"


class Dial:
    """A connection that is being made; a switch of the master ends that early."""

    def __init__(self, bound: asyncio.Timeout) -> None:
        self.bound = bound
        #: Whether there is another master now, so that this attempt leads to the old one.
        self.is_outdated = False

    def outdate(self) -> None:
        """End it."""
        self.is_outdated = True
        with contextlib.suppress(RuntimeError):  # it is ending already
            self.bound.reschedule(asyncio.get_running_loop().time())


class ServerWatch:
    """One event loop's watch; ``here`` returns the running loop's. A timer runs while it has connections."""

    _watches: dict[asyncio.AbstractEventLoop, ServerWatch] = {}  # noqa: RUF012 - the process's, emptied in a fork
    _servers: dict[Hashable, _ServerFacts] = {}  # noqa: RUF012 - as above
    _lock = threading.Lock()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: dict[Hashable, list[_WatchedLine]] = {}  # by the server's address, the oldest first
        self._doubted: set[Hashable] = set()  # servers that seem silent: a check is under way
        self._dials: dict[Fleet, set[Dial]] = {}
        self._joined: dict[Fleet, _Joined] = {}
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def here(cls) -> ServerWatch:
        """Return the running loop's."""
        loop = asyncio.get_running_loop()
        watch = cls._watches.get(loop)
        if watch is None:
            with cls._lock:
                for other in list(cls._watches):
                    if other.is_closed():  # ``asyncio.run`` ended with a queue still open
                        del cls._watches[other]
                watch = cls._watches.setdefault(loop, cls(loop))
        return watch

    @classmethod
    def forget_all(cls) -> None:
        """Forget every watch: a fork has its parent's memory and none of its loops."""
        cls._watches, cls._servers, cls._lock = {}, {}, threading.Lock()
        Fleet.forget_all()

    def _everywhere(self, call: Callable[[ServerWatch], object]) -> None:
        """Have ``call`` made for each loop's watch, in that loop; for this one now."""
        call(self)
        for loop, watch in list(self._watches.items()):
            if watch is not self:
                with contextlib.suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(functools.partial(call, watch), context=Context())

    def _server(self, peer: Hashable) -> _ServerFacts:
        facts = self._servers.get(peer)
        if facts is None:
            if len(self._servers) >= _MOST_SERVERS:  # addresses come and go
                held = {each for watch in list(self._watches.values()) for each in watch.peers()}
                for gone in self._servers.keys() - held:
                    self._servers.pop(gone, None)
            facts = self._servers.setdefault(peer, _ServerFacts())
        return facts

    # Connections.

    def add(
        self,
        resp: RespProtocol,
        *,
        timeout_s: float,
        fleet: Fleet | None = None,
        named: Address | None = None,
    ) -> None:
        """Watch a connection until it ends.

        Args:
            resp: the connection, just made.
            timeout_s: how long its server may be silent.
            fleet: of a Sentinels' master.
            named: the server's address, as the Sentinel wrote it.
        """
        line = _WatchedLine(resp, timeout_s=timeout_s, fleet=fleet, named=named)
        self._lines.setdefault(line.peer, []).append(line)
        resp.ended.add_done_callback(functools.partial(self._ended, line), context=Context())
        self._tick_later()

    def peers(self) -> list[Hashable]:
        """Return the addresses of the connected servers; may be called in any thread."""
        return list(self._lines)

    def _ended(self, line: _WatchedLine, ended: asyncio.Future[RedisError]) -> None:
        lines = self._lines.get(line.peer, [])
        lines.remove(line)
        if not lines:
            del self._lines[line.peer]
            self._end_ticking()
        if isinstance(ended.result(), RedisSilent):
            silent_since_s = time.monotonic() - line.timeout_s
            self._everywhere(lambda watch: watch.doubt(line.peer, silent_since_s))

    # The clock.

    def _tick_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_S, self._tick, context=Context())

    def _end_ticking(self) -> None:
        if self._timer is not None and not (self._lines or self._joined):
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for fleet, joined in list(self._joined.items()):
            self._listen(fleet, joined)
        for peer in list(self._lines):
            if now_s - self._server(peer).asked_at_s > _FRESH_S:
                self._ask_one(peer)
        if self._lines or self._joined:
            self._tick_later()

    # A server's role.

    def _ask_one(self, peer: Hashable) -> None:
        """Ask a server, unless a question is under way."""
        lines = self._lines.get(peer, [])
        if any(line.is_asked for line in lines):
            return
        line = next((line for line in lines if line.can_be_asked), None)
        if line is not None:
            self._ask(line, line.timeout_s)

    def _ask(self, line: _WatchedLine, timeout_s: float) -> None:
        server = self._server(line.peer)
        line.is_asked = True
        server.asked_at_s = time.monotonic()
        on_end = functools.partial(self._answered, line, server.question)
        line.resp.ask((QUESTIONS[server.question],), on_end, timeout_s=timeout_s)

    def _answered(
        self, line: _WatchedLine, question: int, replies: list[Any], error: RedisError | None
    ) -> None:
        line.is_asked = False
        server = self._server(line.peer)
        if error is not None:
            if not isinstance(error, RedisSilent) and server.answered_at_s == -math.inf:
                server.hang_ups += 1
                if server.hang_ups >= _MOST_HANG_UPS:
                    server.question = PING
            return
        if is_refused(replies[0]) and question < PING:
            server.question = max(server.question, question + 1)
            if server.question == PING and not server.is_said:
                server.is_said = True
                logger.warning(
                    "the Redis user may ask %s neither HELLO nor ROLE nor INFO: a failover there is noticed "
                    "only when a command is refused, or the connection ends",
                    line.where,
                )
            if line.resp.is_open:
                self._ask(line, line.timeout_s)
            return
        server.answered_at_s = time.monotonic()
        match role_in(replies[0]):
            case Role.MASTER:
                server.stays_s, server.is_said = 0.0, False
            case Role.REPLICA:
                self._found_replica(line, server)
            case Role.UNKNOWN:
                pass

    def _found_replica(self, line: _WatchedLine, server: _ServerFacts) -> None:
        if line.fleet is not None:
            line.fleet.is_wrong(line.named)
        now_s = time.monotonic()
        if server.stays_s and line.fleet is None:
            self._say_replica(line, server)
            if now_s < server.leave_at_s:
                return
        server.stays_s = min(2 * server.stays_s, _LONGEST_STAY_S) or _SHORTEST_STAY_S
        server.leave_at_s = now_s + server.stays_s
        logger.info("%s is a replica: its connections are left", line.where)
        line.resp.close(_replica(line))
        self._everywhere(lambda watch: watch.ask_others(line.peer))

    @staticmethod
    def _say_replica(line: _WatchedLine, server: _ServerFacts) -> None:
        if not server.is_said:
            server.is_said = True
            logger.warning(
                "%s is a replica: jobs can be neither saved nor taken there. Name the master, or its "
                "Sentinels (redis+sentinel://…). It is tried again and again, for it may be promoted",
                line.where,
            )

    def ask_others(self, peer: Hashable) -> None:
        """Ask over the others after one has found a replica; drop those that find one too, or cannot ask."""
        for line in list(self._lines.get(peer, [])):
            if line.resp.is_subscribed:
                line.resp.close(_replica(line))
            elif line.can_be_asked:  # else the server itself ended its blocking command
                on_end = functools.partial(self._answered_too, line)
                question = QUESTIONS[self._server(peer).question]
                line.resp.ask((question,), on_end, timeout_s=line.timeout_s)

    @staticmethod
    def _answered_too(line: _WatchedLine, replies: list[Any], error: RedisError | None) -> None:
        if error is None and role_in(replies[0]) is Role.REPLICA:
            line.resp.close(_replica(line))

    # Silence.

    def doubt(self, peer: Hashable, silent_since_s: float) -> None:
        """Check the others after one connection found the server silent; drop those that are silent, too."""
        if peer in self._doubted or not self._lines.get(peer):
            return
        self._doubted.add(peer)
        for line in self._lines[peer]:
            if line.resp.is_subscribed:
                line.resp.send(pack("PING"))
            elif line.can_be_asked:
                line.resp.ask((QUESTIONS[PING],), lambda _replies, _error: None, timeout_s=line.timeout_s)
        judge = functools.partial(self._judge, peer, silent_since_s, self._loop.time(), time.monotonic())
        self._judge_later(judge, _PROBE_S)

    def _judge_later(self, judge: Callable[[], None], delay_s: float) -> None:
        last_chance = functools.partial(self._loop.call_later, _LAST_CHANCE_S, judge, context=Context())
        self._loop.call_later(delay_s, last_chance, context=Context())

    def _judge(self, peer: Hashable, silent_since_s: float, asked_at: float, asked_at_s: float) -> None:
        """Drop the connections that were silent for too long, and wait for those that have time left.

        ``asked_at`` is by the loop's clock, as the connections' times are; ``asked_at_s`` by the process's.
        """
        lines = self._lines.get(peer, [])
        unheard = [line for line in lines if line.resp.heard_at < asked_at]
        if len(unheard) < len(lines) or self._server(peer).answered_at_s > asked_at_s:
            # The server is there. A connection that blocks gets no reply before its time.
            unheard = [line for line in unheard if line.resp.longest_wait_s <= line.timeout_s]
        silent_s = time.monotonic() - silent_since_s
        for line in unheard:
            if silent_s >= line.timeout_s:
                line.resp.close(RedisSilent(f"{line.where} does not answer"))
        rests_s = [line.timeout_s - silent_s for line in unheard if silent_s < line.timeout_s]
        if rests_s:
            judge = functools.partial(self._judge, peer, silent_since_s, asked_at, asked_at_s)
            self._judge_later(judge, min(rests_s))
        else:
            self._doubted.discard(peer)

    # Masters behind Sentinels.

    def join(self, owner: object, sentinels: Sentinels) -> Fleet:
        """Follow a master from now on, until ``leave``, or until ``owner`` is garbage-collected."""
        fleet = Fleet.of(sentinels)
        joined = self._joined.get(fleet)
        if joined is None:
            joined = self._joined[fleet] = _Joined(sentinels)
            self._tick_later()
        joined.owners.add(owner)
        if joined.listeners is None:
            self._listen(fleet, joined)
        return fleet

    async def leave(self, owner: object) -> None:
        """Stop following the master for ``owner``."""
        for fleet, joined in list(self._joined.items()):
            joined.owners.discard(owner)
            if not joined.owners:
                await asyncio.gather(*(listener.stop() for listener in self._part(fleet, joined)))

    def _part(self, fleet: Fleet, joined: _Joined) -> list[SentinelListener]:
        """Forget a fleet that no owner here follows; return its listeners, to be stopped."""
        fleet.ends_listening(self._loop)
        self._joined.pop(fleet, None)
        self._end_ticking()
        listeners, joined.listeners = joined.listeners or [], None
        return listeners

    def _listen(self, fleet: Fleet, joined: _Joined) -> None:
        """Listen to the Sentinels if no other loop does."""
        if not joined.owners:
            for listener in self._part(fleet, joined):
                listener.cancel()
        elif not fleet.may_listen(self._loop):
            for listener in joined.listeners or ():
                listener.cancel()
            joined.listeners = None
        elif joined.listeners is None:
            joined.listeners = [
                SentinelListener(
                    fleet.name,
                    address,
                    open_sentinel,
                    open_server=joined.sentinels.open_server,
                    on_switch=functools.partial(self._switched, fleet),
                    on_master=functools.partial(self._stands, fleet),
                )
                for address, open_sentinel in joined.sentinels.members.items()
            ]
            for listener in joined.listeners:
                Context().run(listener.start)
        else:
            for listener in joined.listeners:
                listener.look()

    def _switched(self, fleet: Fleet, old: Address, new: Address, *, is_over: bool) -> None:
        if fleet.switched(old, new, is_over=is_over):
            self._everywhere(lambda watch: watch.leave_old(fleet, new))

    def _stands(self, fleet: Fleet, address: Address, epoch: int) -> None:
        if fleet.learn_master(address, epoch):
            self._everywhere(lambda watch: watch.leave_old(fleet, address))

    def leave_old(self, fleet: Fleet, new: Address) -> None:
        """Drop every connection of the fleet that does not lead to the new master."""
        now_is = f"{new[0]}:{new[1]} is the master of {fleet.name} now"
        for lines in list(self._lines.values()):
            for line in list(lines):
                if line.fleet is fleet and new not in (line.named, line.address):
                    line.resp.close(RedisUnavailable(now_is))
        for dial in self._dials.get(fleet, ()):
            dial.outdate()

    @contextlib.asynccontextmanager
    async def dialling(self, fleet: Fleet | None) -> AsyncIterator[Dial]:
        """End the block early, and without an error, if another server becomes the master meanwhile."""
        dial = Dial(asyncio.timeout(None))
        dials = self._dials.setdefault(fleet, set()) if fleet is not None else set()
        dials.add(dial)
        try:
            async with dial.bound:
                yield dial
        except TimeoutError:
            if not dial.is_outdated:
                raise
        finally:
            dials.discard(dial)
            if fleet is not None and not dials:
                self._dials.pop(fleet, None)


class _Joined:
    """A fleet that connectors of one loop follow."""

    def __init__(self, sentinels: Sentinels) -> None:
        self.sentinels = sentinels
        self.owners: weakref.WeakSet[Any] = weakref.WeakSet()
        self.listeners: list[SentinelListener] | None = None  # None: another loop listens


def _replica(line: _WatchedLine) -> RedisUnavailable:
    return RedisUnavailable(f"{line.where} is a replica now: another server is the master")


os.register_at_fork(after_in_child=ServerWatch.forget_all)
