"""Finds the cluster node that owns a queue's slot: asks the nodes one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from beeq.errors import RedisUnavailable
from beeq.redis.dialling.targets import Address
from beeq.redis.urls import address_text

#: What redis-py raises, and the operating system through it.
_FAILURES = (exceptions.RedisError, OSError, asyncio.IncompleteReadError)


class ClusterNodes:
    """The nodes of one cluster, the given ones and those that they named, in the order in which to ask them.

    Args:
        given: where to ask at first.
        slot_key: a key of the queue.
        connect: opens a connection to a node.
        remap: maps the address that a node states to one where it can be reached.
    """

    def __init__(
        self,
        given: tuple[Address, ...],
        slot_key: str,
        *,
        connect: Callable[[Address], Awaitable[Any]],
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        self._given = given
        self._slot = key_slot(slot_key.encode())
        self._connect = connect
        self._remap = remap
        self._nodes = list(given)

    async def connect_to_owner(self, *, share_s: float) -> Any:
        """Connect to the node that owns the queue's slot, as the first node that answers says.

        Each has ``share_s`` to answer. The node that answered is asked last the next time: it may be cut off
        from the others. Raises what connecting raises, and RedisUnavailable.
        """
        failure: Exception = RedisUnavailable("no node of the cluster answers")
        asked: list[Address] = []
        for address in list(self._nodes):
            asked.append(address)
            self._nodes.sort(key=asked.__contains__)
            try:
                async with asyncio.timeout(share_s):
                    ranges = await self._slots(address)
            except _FAILURES as error:
                failure = _is_no_node(address, str(error)) or error
                continue
            # The nodes in the URL may be gone some day; keep those that they named.
            named = [self._address(node, address[0]) for _first, _last, *nodes in ranges for node in nodes]
            self._nodes = sorted(dict.fromkeys([*named, *self._given]), key=asked.__contains__)
            for first, last, owner, *_replicas in ranges:
                if first <= self._slot <= last:
                    return await self._connect(self._address(owner, address[0]))
            failure = RedisUnavailable("no node of the cluster owns the queue's slot")
        raise failure

    def _address(self, node: Any, asked_host: str) -> Address:
        """Return a node's address; one that does not state its host has the host at which it was asked."""
        address = node[0].decode() if node[0] else asked_host, int(node[1])
        return address if self._remap is None else self._remap(address)

    async def _slots(self, address: Address) -> list[Any]:
        """Return a node's list of slots and their owners."""
        node = await self._connect(address)
        try:
            await node.send_command("CLUSTER", "SLOTS")
            ranges: list[Any] = await node.read_response()
        finally:
            await node.disconnect(nowait=True)
        return ranges


def _is_no_node(address: Address, said: str) -> RedisUnavailable | None:
    """Return the error for a server that is not a cluster node, by what it said."""
    where = address_text(*address)
    if "cluster support disabled" in said:
        return RedisUnavailable(f"{where} belongs to no cluster: write redis://{where}")
    if "unknown command" in said:
        there = f"redis+sentinel://{where}/name-of-the-master"
        return RedisUnavailable(f"{where} is a Sentinel, no node of a cluster: write {there}")
    return None
