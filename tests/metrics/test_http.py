"""The port of metrics and probes, and strangers who reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from beeq.metrics import http
from beeq.metrics.http import Answer, listen, serve

Ask = Callable[[bytes], Awaitable[bytes]]

pytestmark = pytest.mark.fast


async def page(accept: str) -> Answer:
    return Answer(200, b"content for " + accept.encode())


async def broken(_accept: str) -> Answer:
    raise RuntimeError("defect")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = listen("127.0.0.1", 0)
    server = await serve(listener, {"/page": page, "/broken": broken})
    yield listener.getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
def ask(port: int) -> Ask:
    async def ask(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()

    return ask


async def test_a_get_has_the_pages_content(ask: Ask) -> None:
    answer = await ask(b"GET /page?x=1 HTTP/1.1\r\nHost: localhost:1\r\nAccept: text/plain\r\n\r\n")
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 22\r\n" in head
    assert content == b"content for text/plain"


async def test_a_head_has_the_length_and_no_content(ask: Ask) -> None:
    answer = await ask(b"HEAD /page HTTP/1.0\r\n\r\n")
    assert b"content-length: 12\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /page HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /page HTTP/2.0\r\n\r\n", 400),
        (b"\xff\x00 \xff HTTP/1.1\r\n\r\n", 404),
        (b"GET /page HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /page HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 403),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 403),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403),
        (b"GET /page HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n", 200),
        (b"GET /page HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n", 200),
    ],
)
async def test_an_odd_request_has_its_status(ask: Ask, request_: bytes, status: int) -> None:
    assert (await ask(request_)).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("path", [b"/page", b"/other", b"/broken"])
@pytest.mark.parametrize("host", [b"localhost", b"evil.example"])
async def test_no_head_request_has_content(ask: Ask, path: bytes, host: bytes) -> None:
    answer = await ask(b"HEAD %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
    assert answer.endswith(b"\r\n\r\n")


async def test_a_pages_defect_is_logged_with_its_traceback(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(b"GET /broken HTTP/1.1\r\n\r\n")
    (record,) = caplog.records
    assert record.getMessage() == "'/broken' cannot be answered: RuntimeError: defect"
    assert record.exc_info


async def test_a_head_without_end_gets_no_answer(ask: Ask) -> None:
    try:
        answer = await ask(b"GET /page HTTP/1.1\r\n" + b"a: b\r\n" * 10_000)
    except ConnectionError:
        answer = b""
    assert answer == b""


async def test_many_slow_heads_do_not_keep_a_probe_out(ask: Ask, port: int) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
    for _, writer in slow:
        writer.write(b"GET /pa")
    assert (await ask(b"GET /page HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    for _, writer in slow:
        writer.close()


async def test_slow_heads_are_cut(ask: Ask, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_HEAD_S", 0.3)
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
    for _, writer in slow:
        writer.write(b"GET /pa")
    ends = await asyncio.wait_for(
        asyncio.gather(*(reader.read() for reader, _ in slow), return_exceptions=True), 10
    )
    assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)
    assert (await ask(b"GET /page HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    for _, writer in slow:
        writer.close()


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "0.0.0.0", "::1", "[::1]", "::"])
def test_an_address_is_listened_on(address: str) -> None:
    try:
        listen(address, 0).close()
    except OSError:
        assert ":" in address, "a machine may lack IPv6 only"


@pytest.mark.parametrize("address", ["example.com", "", "127.0.0.1:80", "300.0.0.1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        listen(address, 0)
