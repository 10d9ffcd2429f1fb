"""The connections of ``beeq web``'s server, in this process: what time they have, and who gives way to whom."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from beeq.web.connections import (
    HEAD_TIMEOUT_S,
    MAX_CHUNKS,
    TAKE_TIMEOUT_S,
    ClientConnection,
    ClientConnections,
    connections_possible,
)

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Served:
    """A server of one application, and its connections."""

    def __init__(self, app: Any, limit: int) -> None:
        self.connections = ClientConnections(limit=limit)
        self._config = uvicorn.Config(app, http=ClientConnection, log_config=None, ws="none")  # type: ignore[arg-type]
        self._state = ServerState()
        self.port = 0

    def connection(self) -> ClientConnection:
        return ClientConnection(self.connections, config=self._config, server_state=self._state, app_state={})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def after(self, seconds: float) -> None:
        """Look at the connections as one would so much later."""
        self.connections.close_late(asyncio.get_running_loop().time() + seconds)

    @property
    def open(self) -> list[ClientConnection]:
        return list(self.connections._all)


@asynccontextmanager
async def served(app: Any, *, limit: int = 10) -> AsyncIterator[Served]:
    found = Served(app, limit)
    server = await asyncio.get_running_loop().create_server(found.connection, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for connection in found.open:
            connection.drop()


def answering(body: bytes = b"ok", until: asyncio.Event | None = None) -> Callable[..., Any]:
    """Return an application that gives one answer, after the event."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if until is not None:
            await until.wait()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def reader_of(writer: asyncio.StreamWriter) -> asyncio.Transport:
    """Return the transport as one that reads."""
    assert isinstance(writer.transport, asyncio.Transport)
    return writer.transport


async def head_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes to the connection's end; a reset is an end."""
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b"reset"


async def test_a_heads_time_begins_with_the_end_of_the_last_response(eventually):
    async with served(answering()) as server:
        silent, begun, asked = [await server.connect() for _ in range(3)]
        begun[1].write(b"GET / HTTP")
        asked[1].write(GET)
        assert b"200" in await head_of(asked[0])
        await asked[0].readexactly(2)
        asked[1].write(b"GET / HTTP")
        await eventually(lambda: sum(one.has_begun for one in server.open) == 2)
        server.after(HEAD_TIMEOUT_S - 5)
        assert len(server.open) == 3
        server.after(HEAD_TIMEOUT_S + 1)
        assert await rest_of(silent[0]) == b""
        for reader, _ in (begun, asked):
            assert (await rest_of(reader)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        await eventually(lambda: server.open == [])
        for _, writer in (silent, begun, asked):
            writer.close()


async def test_a_request_under_way_has_its_own_time(eventually):
    is_done = asyncio.Event()
    async with served(answering(until=is_done)) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        await eventually(lambda: server.open and server.open[0].cycle is not None)
        server.after(HEAD_TIMEOUT_S * 100)
        is_done.set()
        assert b"200" in await head_of(reader)
        writer.close()


async def test_who_takes_no_response_loses_the_connection(eventually):
    async with served(answering(b"x" * (64 << 20))) as server:
        reader, writer = await server.connect()
        reader_of(writer).pause_reading()
        writer.write(GET)
        await eventually(lambda: server.open and server.open[0].flow.write_paused)
        server.after(0)
        server.after(TAKE_TIMEOUT_S - 5)
        assert len(server.open) == 1
        server.after(TAKE_TIMEOUT_S + 1)
        await eventually(lambda: server.open == [])
        reader_of(writer).resume_reading()
        assert len(await rest_of(reader)) < 64 << 20
        writer.close()


async def test_a_response_that_is_taken_starts_no_clock(eventually):
    async with served(answering(b"x" * (8 << 20))) as server:
        reader, writer = await server.connect()
        for _ in range(2):
            writer.write(GET)
            await head_of(reader)
            server.after(0)
            await reader.readexactly(8 << 20)
            await eventually(lambda: not server.open[0].transport.get_write_buffer_size())
            server.after(0)
        writer.close()


async def test_a_new_connection_takes_the_place_of_the_longest_wait(eventually):
    async with served(answering(), limit=3) as server:
        first, second, third = [await server.connect() for _ in range(3)]
        await eventually(lambda: len(server.open) == 3)
        first[1].write(GET)  # so it has waited for the shortest time
        assert b"200" in await head_of(first[0])
        fourth = await server.connect()
        assert await rest_of(second[0]) in (b"", b"reset")
        for reader, writer in (first, third, fourth):
            writer.write(GET)
            assert b"200" in await head_of(reader)
        for _, writer in (first, second, third, fourth):
            writer.close()


async def test_where_all_wait_for_us_a_new_connection_is_refused(eventually):
    is_done = asyncio.Event()
    async with served(answering(until=is_done), limit=2) as server:
        busy = [await server.connect() for _ in range(2)]
        for _, writer in busy:
            writer.write(GET)
        await eventually(
            lambda: len(server.open) == 2 and all(not one.waits_for_client for one in server.open)
        )
        refused = await server.connect()
        assert (await rest_of(refused[0])).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        is_done.set()
        for reader, writer in busy:
            assert b"200" in await head_of(reader)
            writer.close()
        refused[1].close()


@pytest.mark.parametrize(
    ("descriptors", "limit", "possible"),
    [(65_536, 500, 500), (256, 500, 128), (1024, 5000, 896), (32, 500, 16), (-1, 500, 500), (256, 4, 4)],
)
def test_there_are_no_more_connections_than_descriptors(monkeypatch, descriptors, limit, possible):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (descriptors, descriptors))
    assert connections_possible(limit) == possible


class Reading:
    """An application that reads a body to its end, and answers after it."""

    def __init__(self) -> None:
        self.size = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message: Any = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            self.size += len(message.get("body", b""))
        await answering()(scope, receive, send)


POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_a_body_of_countless_chunks_ends_the_connection(eventually):
    app = Reading()
    async with served(app) as server:
        reader, writer = await server.connect()
        writer.write(POST + b"1\r\n \r\n" * 100_000)
        answer = await rest_of(reader)
        assert answer == b"reset" or answer.startswith(b"HTTP/1.1 400 ")
        await eventually(lambda: server.open == [])
        writer.close()
    assert app.size <= MAX_CHUNKS


async def test_each_request_of_a_connection_has_all_its_chunks():
    app = Reading()
    async with served(app) as server:
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(POST + b"400\r\n%s\r\n" % (b" " * 1024) * MAX_CHUNKS + b"0\r\n\r\n")
            assert b" 200 " in await head_of(reader)
            await reader.readexactly(2)
        writer.close()
    assert app.size == 3 * MAX_CHUNKS * 1024
