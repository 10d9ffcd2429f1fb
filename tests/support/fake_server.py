"""fakeredis behind a TCP port, in a thread of this process: it runs beeq's real Lua scripts. ``-m fast`` uses it.

One event loop serves all connections, as in Redis: commands run one by one, and what they publish is written right
after their replies, before any later command runs. (fakeredis's own TCP server has a thread for each connection,
and looks for messages every 10 ms.)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

import redis
import redis.asyncio
from fakeredis import FakeServer as Data
from fakeredis._clients import _tcp_server as fake_tcp
from fakeredis._helpers import NoResponse
from fakeredis._socket import FakeSocket
from fakeredis.model import ClientInfo


class _Replies:
    """What is to be sent. Like Redis: nothing before the commands at hand have ended, and messages after replies."""

    def __init__(self) -> None:
        self._by_transport: dict[asyncio.Transport, bytearray] = {}

    def add(self, transport: asyncio.Transport, reply: bytes) -> None:
        self._by_transport.setdefault(transport, bytearray()).extend(reply)

    def flush(self) -> None:
        while self._by_transport:
            transport, replies = self._by_transport.popitem()  # messages were added first: before the reply
            if not transport.is_closing():
                transport.write(replies)


class _Client(FakeSocket):
    """fakeredis's side of one connection."""

    def __init__(self, data: Data, transport: asyncio.Transport, replies: _Replies) -> None:
        self._transport = transport
        self._replies = replies
        self._wait: _Wait | None = None
        host, port = transport.get_extra_info("peername")
        info = {"addr": f"{host}:{port}", "name": "", "flags": "N"}
        super().__init__(data, 0, client_class=redis.Redis, client_info=ClientInfo(**info))

    def _process_command(self, fields: list[bytes]) -> None:
        """Note the command for CLIENT LIST, and execute it."""
        self._client_info["cmd"] = fields[0].decode().lower()
        super()._process_command(fields)

    def put_response(self, msg: Any) -> None:
        """Send a reply, or a message of a channel."""
        self._replies.add(self._transport, fake_tcp.encode_reply(msg, self._client_info.protocol_version))

    def hrandfield(self, key: Any, *args: bytes) -> Any:
        """Draw none from an empty hash: where a count is given, Redis replies with an empty list."""
        drawn = super().hrandfield(key, *args)
        return [] if drawn is None and args else drawn

    def _blocking(
        self, timeout: float | None, func: Callable[[bool], Any], shape: Callable[[Any], Any] | None = None
    ) -> Any:
        """Reply now, or as soon as a change of the data lets ``func`` succeed; None is found in the end."""
        shaped = shape or _as_it_is
        found = func(True)
        if found is not None or self._in_transaction:
            return shaped(found)
        self.pause()  # what the client sends now waits for the reply
        self._wait = _Wait(self, self._db, func, shaped)
        if timeout:
            self._wait.end_after(timeout)
        return NoResponse()

    def found(self, reply: Any) -> None:
        """A blocking command has its reply: go on."""
        self._blocked, self._unblock_reason = False, None
        self.put_response(self._decode_result(reply))
        self.resume()
        self._replies.flush()

    @property
    def is_unblocked(self) -> bool:
        """Whether another client has ended the waiting."""
        return self._unblock_reason is not None

    def close(self) -> None:
        """Forget the connection."""
        if self._wait is not None:
            self._wait.stop()
        super().close()


def _as_it_is(found: Any) -> Any:
    return found


class _Wait:
    """A blocking command of one client, until it finds something or is over."""

    def __init__(
        self, client: _Client, database: Any, look: Callable[[bool], Any], shape: Callable[[Any], Any]
    ) -> None:
        self._client = client
        self._database = database
        self._look = look
        self._shape = shape
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._has_ended = False
        client._blocked = True
        database.add_change_callback(self._changed)

    def end_after(self, seconds: float) -> None:
        """Find nothing when the time is over."""
        self._timer = self._loop.call_later(seconds, self._end, None)

    def stop(self) -> None:
        """Look no more."""
        if not self._has_ended:
            self._has_ended = True
            self._database.remove_change_callback(self._changed)
            if self._timer is not None:
                self._timer.cancel()

    def _changed(self) -> None:
        self._loop.call_soon(self._look_again)  # the command that makes the change ends first

    def _look_again(self) -> None:
        if self._has_ended:
            return
        found = None if self._client.is_unblocked else self._look(False)
        if found is not None or self._client.is_unblocked:
            self._end(found)

    def _end(self, found: Any) -> None:
        self.stop()
        self._client.found(self._shape(found))


class _Connection(asyncio.Protocol):
    """Hands over what one client sends."""

    def __init__(self, data: Data, replies: _Replies, connections: set[_Connection]) -> None:
        self._data = data
        self._replies = replies
        self._connections = connections  # those that are open
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._client = _Client(self._data, transport, self._replies)

    def data_received(self, data: bytes) -> None:
        """Execute the commands that are complete."""
        try:
            self._client.sendall(data)
        except redis.ConnectionError:  # CLIENT KILL: fakeredis says so at the next command
            self._transport.abort()
        self._replies.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """End."""
        self._client.close()
        self._connections.discard(self)
        self.is_lost.set()

    async def end(self) -> None:
        """Hang up."""
        self._transport.abort()
        await self.is_lost.wait()


class FakeServer:
    """What tests use of a ``Server`` that nobody stops, kills or suspends."""

    def __init__(self) -> None:
        self._data = Data(server_type="valkey", version=(8, 0))
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fakeredis", daemon=True)
        replies = _Replies()
        listening = self._loop.create_server(
            lambda: _Connection(self._data, replies, self._connections), "127.0.0.1", 0
        )
        self._server = self._loop.run_until_complete(listening)
        self.port = int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where it listens, without a database number."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.asyncio.Redis:
        """Return an async client; close it, or use it as a context manager."""
        return redis.asyncio.Redis(host="127.0.0.1", port=self.port, **options)

    def sync_client(self, **options: Any) -> redis.Redis:
        """Return a blocking client that decodes replies; close it, or use it as a context manager."""
        return redis.Redis(host="127.0.0.1", port=self.port, **{"decode_responses": True, **options})

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End: no thread is left."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            await connection.end()
