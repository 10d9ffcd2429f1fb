"""A peer that looks like Redis while a connection is made, and afterwards answers as the test has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import hiredis

from beeq.redis.connector import Connector

#: What a command is answered with; None hangs up.
Answer = Callable[[list[bytes]], bytes | None]


class Peer:
    """Reads commands and answers them.

    Attributes:
        answer: asked for the reply to each command; by default there is none.
        commands: what was asked, on whatever connection, without what redis-py says when it connects.
        dialled: how many connections were made.
        open_count: how many of them are open now.
        is_frozen: nothing is said, not even while a connection is made.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda _command: b""
        self.commands: list[list[bytes]] = []
        self.dialled = 0
        self.open_count = 0
        self.is_frozen = False
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._subscribed: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()

    def connector(self) -> Connector:
        """Return what makes connections to this peer."""
        return Connector(f"redis://127.0.0.1:{self.port}", timeout_ms=5000, slot_key="slot")

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.append(writer)
        self.dialled += 1
        self.open_count += 1
        self._news.set()
        commands = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    self._take(command, writer)
        self.open_count -= 1
        self._news.set()
        writer.close()

    def _take(self, command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if self.is_frozen:
            return
        if command[:2] == [b"CLIENT", b"SETINFO"]:
            writer.write(b"+OK\r\n")
            return
        self.commands.append(command)
        if command[0] == b"SUBSCRIBE":
            self._subscribed.append(writer)
        self._news.set()
        said = self.answer(command)
        if said is None:
            writer.close()
        elif not writer.is_closing():
            writer.write(said)

    def say(self, said: bytes) -> None:
        """Send something over the newest connection."""
        self._writers[-1].write(said)

    def publish(self, said: bytes) -> None:
        """Send something over the newest connection that has subscribed."""
        self._subscribed[-1].write(said)

    def hang_up(self) -> None:
        """End the newest connection, and the newest that has subscribed."""
        for writer in (*self._writers[-1:], *self._subscribed[-1:]):
            writer.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so that a command, or the end of a connection, makes so."""
        async with asyncio.timeout(10):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def close(self) -> None:
        """End what is left."""
        for writer in self._writers:
            writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


@contextlib.asynccontextmanager
async def scripted_peer() -> AsyncIterator[Peer]:
    """Start a peer; it ends with the block."""
    peer = Peer()
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.close()
