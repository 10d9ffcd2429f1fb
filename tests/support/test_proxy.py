"""The proxy itself: a limit of bytes, and frozen and thawed connections."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from tests.support.proxy import proxy_to

pytestmark = pytest.mark.fast


@contextlib.asynccontextmanager
async def an_echo():
    """A server that sends back what it reads; yields its port and, in order, all that it read."""
    seen = bytearray()

    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                seen.extend(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connected(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_without_a_limit_all_bytes_go_both_ways():
    async with an_echo() as (port, _), proxy_to(port) as proxy, connected(proxy) as (reader, writer):
        writer.write(bytes(2_000_000))
        assert await reader.readexactly(2_000_000) == bytes(2_000_000)


async def test_a_limit_counts_all_connections_together():
    async with an_echo() as (port, _), proxy_to(port) as proxy:
        proxy.limit(bytes_per_s=1_000_000)
        async with connected(proxy) as first, connected(proxy) as second:
            begin = time.monotonic()
            for _, writer in (first, second):
                writer.write(bytes(100_000))
            for reader, _ in (first, second):
                await reader.readexactly(100_000)
    assert time.monotonic() - begin >= 0.2


async def test_a_limit_can_be_lifted():
    async with an_echo() as (port, _), proxy_to(port) as proxy, connected(proxy) as (reader, writer):
        proxy.limit(bytes_per_s=100)
        writer.write(b"slow")
        assert await reader.readexactly(4) == b"slow"
        proxy.limit(None)
        writer.write(bytes(1_000_000))
        await reader.readexactly(1_000_000)


async def test_frozen_it_accepts_and_holds_and_thawed_it_delivers(eventually):
    async with an_echo() as (port, seen), proxy_to(port) as proxy, connected(proxy) as (reader, writer):
        proxy.freeze()
        writer.write(b"held ")
        async with connected(proxy) as (_, gone):
            gone.write(b"from one who left")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert not seen
        proxy.thaw()
        assert await reader.readexactly(5) == b"held "
        await eventually(lambda: b"from one who left" in seen)
