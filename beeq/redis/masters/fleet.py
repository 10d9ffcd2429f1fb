"""What this process knows of one master behind Sentinels: its address, and which event loop listens.

Each Sentinel announces a failover once, up to seconds apart. The first announcement counts; a later one is
old news, and must not lead back to the old master. Shared by all threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from beeq.redis.masters.promotion import OpenServer
from beeq.redis.resp import RespProtocol

#: Host and port, as a Sentinel writes them.
Address = tuple[str, int]
#: Opens a connection to one Sentinel; raises RedisError.
OpenSentinel = Callable[[Callable[[Any], None]], Awaitable[RespProtocol]]

#: Sentinels inform each other of a failover within two seconds; until then one of them may repeat old news,
#: or name the old master.
_SETTLED_AFTER_S = 5.0
#: Once a replica is promoted, its Sentinel names the old master until the other replicas follow the new one.
_LONGEST_FAILOVER_S = 180.0
#: A loop that has not confirmed for so long that it listens is blocked, or has ended: another one takes over.
_LEASE_S = 2.5


@dataclass(frozen=True)
class Sentinels:
    """The Sentinels of one master, and how to reach them and the servers.

    Attributes:
        name: the master's.
        members: opens a connection to each Sentinel, by its address.
        open_server: opens one to a server of the fleet, as to the master.
    """

    name: str
    members: dict[Address, OpenSentinel]
    open_server: OpenServer

    @property
    def key(self) -> Hashable:
        """What is the same for all queues that have the same Sentinels and master."""
        return self.name, frozenset(self.members)


class Fleet:
    """One master's state. ``of`` returns the process's only one for a name and its Sentinels."""

    _fleets: dict[Hashable, Fleet] = {}  # noqa: RUF012 - the process's, emptied in a fork
    _lock = threading.Lock()

    def __init__(self, name: str) -> None:
        self.name = name
        #: How often a new master was announced; a change ends the delay after a failure early.
        self.switches = 0
        self._address: Address | None = None
        self._fresh_until_s = 0.0
        self._epoch = -1  # not known yet
        #: Recent announcements, and when they came.
        self._heard: dict[tuple[Address, Address], float] = {}
        self._listening: object | None = None
        self._listened_at_s = 0.0

    @classmethod
    def of(cls, sentinels: Sentinels) -> Fleet:
        """Return the process's fleet of this master."""
        with cls._lock:
            return cls._fleets.setdefault(sentinels.key, cls(sentinels.name))

    @classmethod
    def forget_all(cls) -> None:
        """Forget every fleet: after a fork."""
        cls._fleets, cls._lock = {}, threading.Lock()

    # Which event loop listens.

    def may_listen(self, loop: object) -> bool:
        """Return whether the event loop is the one that listens to the Sentinels; it asks every second."""
        now_s = time.monotonic()
        with self._lock:
            if self._listening is not loop and now_s - self._listened_at_s < _LEASE_S:
                return False
            self._listening, self._listened_at_s = loop, now_s
            return True

    def ends_listening(self, loop: object) -> None:
        """Let another loop listen."""
        with self._lock:
            if self._listening is loop:
                self._listening, self._listened_at_s = None, 0.0

    # What is heard.

    def switched(self, old: Address, new: Address, *, is_over: bool) -> bool:
        """Note that ``new`` has been promoted instead of ``old``; return whether that is news.

        ``is_over``: whether the failover has ended; until then the Sentinels go on naming the old one.
        """
        now_s = time.monotonic()
        fresh_s = _SETTLED_AFTER_S if is_over else _LONGEST_FAILOVER_S
        with self._lock:
            is_repeated = now_s - self._heard.get((old, new), -_SETTLED_AFTER_S) < _SETTLED_AFTER_S
            self._heard = {pair: at for pair, at in self._heard.items() if now_s - at < _SETTLED_AFTER_S}
            if new == self._address and self._fresh_until_s:
                self._fresh_until_s = now_s + fresh_s
            if is_repeated:
                return False
            self._heard[old, new] = now_s
            if new != self._address:
                self._epoch += 1  # a failover raises the Sentinels' own count by one, or more
                self._take(new, fresh_s)
            return True

    def learn_master(self, address: Address, epoch: int) -> bool:
        """Note the master and the failover count that a Sentinel replied; return whether it is news.

        A Sentinel that was cut off from the others has a lower count, and is ignored. The first one asked may
        be cut off, so its reply is only kept to compare with.
        """
        with self._lock:
            is_first, is_newer = self._epoch < 0, epoch > self._epoch
            self._epoch = max(epoch, self._epoch)
            if not is_newer or address == self._address:
                return False
            if is_first:
                self._address = address
                return False
            self._take(address, _SETTLED_AFTER_S)
            return True

    def _take(self, address: Address, fresh_s: float) -> None:
        self._address, self._fresh_until_s = address, time.monotonic() + fresh_s
        self.switches += 1

    @property
    def fresh_address(self) -> Address | None:
        """The new master's address while some Sentinel may still name the old one; None once they agree."""
        return self._address if time.monotonic() < self._fresh_until_s else None

    def is_wrong(self, address: Address | None) -> None:
        """Note that the server at ``address`` is a replica or cannot be reached: ask the Sentinels."""
        with self._lock:
            if self._address == address:
                self._fresh_until_s = 0.0
