"""Servers that can replace each other: a primary with a replica and a Sentinel, and a cluster.

``Pair`` and ``Cluster`` know who is the primary, make the replica catch up, and fail over. They know
nothing of queues.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from benchmarks.binaries import DEFAULT
from benchmarks.servers import PATIENCE_S, Server, free_port

#: The name by which the Sentinel knows its primary.
NAME = "mymaster"
#: A server that is silent for so long counts as dead; long enough for a busy machine.
_DEAD_AFTER_MS = 700
#: A replica starts to copy at once.
_EAGER = ("--repl-diskless-sync-delay", "0")
#: The longest time that clients are held back; the caller ends it earlier.
_HELD_BACK_MS = 30_000
_SLOTS = 16384
#: Of a cluster.
_PRIMARIES = 3


def until(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Return the first truthy value of ``holds()``; a server that does not answer holds nothing.

    Raises:
        AssertionError: there was none in time.
    """
    over = time.monotonic() + within_s
    while True:
        try:
            value = holds()
        except redis.RedisError as error:
            value, said = None, repr(error)
        else:
            said = repr(value)
        if value:
            return value
        if time.monotonic() > over:
            raise AssertionError(f"{holds} did not hold within {within_s} s: {said}")
        threading.Event().wait(0.01)


def ask(server: Server, *command: Any) -> Any:
    """Return a server's reply, asked over a connection of its own."""
    with server.sync_client(socket_timeout=2) as client:
        return client.execute_command(*command)


def role(server: Server) -> str:
    """Return ``master`` or ``slave``, as the server sees itself."""
    return str(_replication(server)["role"])


def _replication(server: Server) -> dict[str, Any]:
    with server.sync_client(socket_timeout=2) as client:
        facts: dict[str, Any] = client.info("replication")
    return facts


def is_in_step(primary: Server, replica: Server) -> bool:
    """Return whether the replica has all that the primary has."""
    there = _replication(replica)
    return (
        there.get("master_link_status") == "up"
        and there["slave_repl_offset"] >= _replication(primary)["master_repl_offset"]
    )


@contextmanager
def _closed_on_failure(started: ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        started.close()
        raise


@contextmanager
def writes_held_back(primary: Server, replica: Server) -> Iterator[None]:
    """Hold back writes, and let the replica catch up: then both have everything that was confirmed.

    What clients ask for meanwhile waits at the primary. If that dies it was never executed.
    """
    ask(primary, "CLIENT", "PAUSE", _HELD_BACK_MS, "WRITE")
    until(lambda: is_in_step(primary, replica))
    yield
    if primary.is_running:
        ask(primary, "CLIENT", "UNPAUSE")


class Sentinel(Server):
    """A Sentinel that watches one primary under the name ``mymaster``, and decides alone.

    Args:
        folder: for its files.
        primary: what it watches at first.
        dead_after_ms: how long a server may be silent.
        kind: one of ``binaries.KINDS``; not Redis 6.2, which cannot be made to look often.
        is_close: look at the servers far more often than by default.
    """

    def __init__(
        self,
        folder: Path,
        primary: Server,
        *,
        dead_after_ms: int = 30_000,
        kind: str = DEFAULT,
        is_close: bool = True,
    ) -> None:
        super().__init__(folder, kind=kind)
        self._is_close = is_close
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} {dead_after_ms}\n"
            f"sentinel failover-timeout {NAME} 1000\n"
        )

    @property
    def url(self) -> str:
        """Where a queue finds the primary."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{NAME}/0"

    def start(self, *_options: str) -> Self:
        """Start, and return once it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), str(self._configuration), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()
        if self._is_close:
            for period in ("info-period", "publish-period"):
                ask(self, "SENTINEL", "DEBUG", period, 100)
        return self

    def knows_replica(self) -> bool:
        """Return whether it could promote a replica: it has heard from one that is in order."""
        with self.sync_client() as client:
            replicas = client.sentinel_slaves(NAME)
        return any(
            replica["master-link-status"] == "ok" and not replica["is_disconnected"] for replica in replicas
        )


class Pair:
    """A primary, its replica, and a Sentinel; ``primary`` and ``replica`` change places at a failover.

    Args:
        folder: for their files.
        options: of both servers, as on the command line.
        kind: which servers they are, one of ``binaries.KINDS``; the Sentinel is always the default's.
        is_watched_closely: the Sentinel looks at them far more often than by default.
    """

    def __init__(
        self, folder: Path, *options: str, kind: str = DEFAULT, is_watched_closely: bool = True
    ) -> None:
        self._folder = folder
        self._is_watched_closely = is_watched_closely
        self._kind = kind
        self._options = (*_EAGER, *options)
        self._started = ExitStack()
        self._is_planned = False

    def __enter__(self) -> Self:
        """Start all three, and return once the Sentinel knows both servers."""
        with _closed_on_failure(self._started):
            self._start()
        return self

    def _start(self) -> None:
        self.primary = self._server("first").start(*self._options)
        self.replica = self._server("second")
        self.revive()
        self.sentinel = Sentinel(
            self._new_folder("sentinel"),
            self.primary,
            dead_after_ms=_DEAD_AFTER_MS,
            is_close=self._is_watched_closely,
        )
        self._started.enter_context(self.sentinel)
        until(self.sentinel.knows_replica)

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _server(self, name: str) -> Server:
        server = Server(self._new_folder(name), kind=self._kind)
        self._started.callback(server.stop)
        return server

    def __exit__(self, *_exception: object) -> None:
        """Stop all."""
        self._started.close()

    @property
    def url(self) -> str:
        """What a queue is given."""
        return self.sentinel.url

    def change_places(self) -> None:
        """Wait until the replica has been promoted and the Sentinel says so; it is the primary then."""

        def is_promoted() -> bool:
            is_at_it = "failover_in_progress" in str(ask(self.sentinel, "SENTINEL", "MASTER", NAME))
            address = ask(self.sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            is_over = role(self.replica) == "master" and int(address[1]) == self.replica.port
            if self._is_planned and not is_at_it and not is_over:
                # On a busy machine the Sentinel gives it up if what it knows of the replica is too old.
                self.fail_over()
            return is_over

        until(is_promoted)
        self._is_planned = False
        self.primary, self.replica = self.replica, self.primary

    def revive(self) -> None:
        """Start the replica, which does not run, and return once it has all that the primary has."""
        self.replica.start(*self._options, "--replicaof", "127.0.0.1", str(self.primary.port))
        until(lambda: is_in_step(self.primary, self.replica))

    def fail_over(self) -> None:
        """Have the Sentinel do a planned failover: it promotes the replica, and demotes the primary later."""
        self._is_planned = True
        ask(self.sentinel, "SENTINEL", "FAILOVER", NAME)


class Cluster:
    """Three primaries that share the slots, and maybe a replica of one of them.

    Args:
        folder: for their files.
        options: of all nodes, as on the command line.
        tag: the owner of this hash tag's slot gets a replica; None: no node does.
        kind: which servers they are, one of ``binaries.KINDS``; not Redis 6.2, which has no cluster-port.
    """

    def __init__(self, folder: Path, *options: str, tag: str | None = None, kind: str = DEFAULT) -> None:
        self._folder = folder
        self._kind = kind
        self._options = ("--cluster-enabled", "yes", *_EAGER, *options)
        self._tag = tag
        self._started = ExitStack()
        self.nodes: list[Server] = []
        self._bus: dict[int, int] = {}  # port → port of the cluster's own talk

    def __enter__(self) -> Self:
        """Start all nodes, and return once each of them says that the cluster is whole."""
        with _closed_on_failure(self._started):
            self._start()
        return self

    def _start(self) -> None:
        for _ in range(_PRIMARIES):
            self._add_node()
        share = -(-_SLOTS // _PRIMARIES)
        for at, node in enumerate(self.nodes):
            ask(node, "CLUSTER", "ADDSLOTSRANGE", at * share, min((at + 1) * share, _SLOTS) - 1)
        for node in self.nodes[1:]:
            self._meet(node)
        until(lambda: all(_is_whole(node) for node in self.nodes))
        if self._tag is not None:
            owner = self.owner(key_slot(self._tag.encode()))
            self.replica = self._add_node()
            self._meet(self.replica)
            owner_id = node_id(owner)
            until(lambda: ask(self.replica, "CLUSTER", "REPLICATE", owner_id))
            until(lambda: is_in_step(owner, self.replica))
            until(lambda: all(node_id(self.replica) in _replica_ids(node) for node in self.nodes))

    def __exit__(self, *_exception: object) -> None:
        """Stop all."""
        self._started.close()

    def _add_node(self) -> Server:
        folder = self._folder / f"node-{len(self.nodes)}"
        folder.mkdir()
        node, bus = Server(folder, kind=self._kind), free_port()
        node.start(*self._options, "--cluster-port", str(bus))
        self._started.callback(node.stop)
        self.nodes.append(node)
        self._bus[node.port] = bus
        return node

    def revive(self, node: Server) -> None:
        """Start a node that was killed; it knows the others."""
        node.start(*self._options, "--cluster-port", str(self._bus[node.port]))

    def _meet(self, node: Server) -> None:
        ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, self._bus[node.port])

    def owner(self, slot: int) -> Server:
        """Return the node that owns a slot, as the nodes that live say."""
        witness = next(node for node in self.nodes if node.is_running)
        for first, last, (_host, port, *_), *_replicas in ask(witness, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody owns slot {slot}")

    def move(self, slot: int, target: Server) -> None:
        """Move a slot and what is in it to another node, as ``valkey-cli --cluster reshard`` does."""
        source = self.owner(slot)
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            threading.Event().wait(0.02)  # the queue meets a slot that is half here, half there
        for node in (target, source, *self.nodes):
            if role(node) == "master":
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", node_id(target))


def node_id(node: Server) -> str:
    """Return a node's name in its cluster."""
    return str(ask(node, "CLUSTER", "MYID"))


def _is_whole(node: Server) -> bool:
    facts = str(ask(node, "CLUSTER", "INFO"))
    return "cluster_state:ok" in facts and len(ask(node, "CLUSTER", "SLOTS")) == _PRIMARIES


def _replica_ids(node: Server) -> list[str]:
    owners = ask(node, "CLUSTER", "SLOTS")
    return [str(replica[2]) for owner in owners for replica in owner[3:]]
