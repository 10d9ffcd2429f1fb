"""The status line is the outcome, however the head of a response goes on, and however it is written."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beeq.http_client.addresses import AllowedHosts
from beeq.webhooks import delivery
from beeq.webhooks.delivery import WebhookSender
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, Script, drip, reply, send, send_for_ever

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"{}"


async def loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    trusting = ssl.create_default_context(cadata=CERTIFICATE)
    allowed = AllowedHosts.parse("127.0.0.1,hooks.example")
    sender = WebhookSender(allowed, resolve=loopback, ssl_context=trusting)
    yield sender
    await sender.aclose()


REST_OF_A_HEAD = {
    "no colon": send(b"bad header hunter2\r\n\r\n"),
    "no name": send(b": x\r\n\r\n"),
    "space in the name": send(b"a b: c\r\n\r\n"),
    "space before the colon": send(b"a : c\r\n\r\n"),
    "control character": send(b"a: b\x00c\x1b\r\n\r\n"),
    "folded first line": send(b" folded\r\n\r\n"),
    "carriage return": send(b"a: b\rc\r\n\r\n"),
    "length is no number": send(b"content-length: nan\r\n\r\n"),
    "two lengths": send(b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
    "unknown coding": send(b"transfer-encoding: x\r\n\r\n"),
    "two codings": send(b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"),
    "hangs up": send(b""),
    "hangs up in a line": send(b"content-le"),
    "lines without end": send_for_ever(b"", b"a: b\r\n" * 1000),
    "a line without end": send_for_ever(b"", b"a" * 1000),
    "dripping": drip(b"", b"a: b\r\n"),
    "silent": send(hang_up=False),
}


@pytest.mark.parametrize("rest", REST_OF_A_HEAD.values(), ids=REST_OF_A_HEAD)
@pytest.mark.parametrize("status", [204, 410])
async def test_the_status_line_counts_however_its_head_goes_on(
    sender: WebhookSender, status: int, rest: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "REST_TIMEOUT_S", 0.2)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d Whatever\r\n" % status)
        await rest(reader, writer)

    async with Receiver(script) as receiver, asyncio.timeout(5):
        answer = await sender.deliver(receiver.url(), "7", BODY)
        await receiver.until_open(0)  # what cannot be read is not read to its end

    assert answer.status == status


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 202",
        b"HTTP/1.1 202\r\n\r\n",
        b"HTTP/1.1 202\n\n",
        b"HTTP/1.1  202 Two spaces\r\n\r\n",
        b"HTTP/1.0 202 OK\r\n\r\n",
        b"HTTP/2 202\r\n\r\n",
        b"http/1.1 202 OK\r\n\r\n",
        b"\r\nHTTP/1.1 202 After an empty line\r\n\r\n",
        b"HTTP/1.1 202 Sch\xc3\xb6n \x01\r\n\r\n",
        b"HTTP/1.1 103 Hint\r\nno colon\r\n\r\nHTTP/1.1 202 OK\r\n\r\n",
    ],
)
@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "byte by byte"])
async def test_a_status_line_may_be_written_in_odd_ways(
    sender: WebhookSender, line: bytes, in_bytes: bool
) -> None:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in [line[i : i + 1] for i in range(len(line))] if in_bytes else [line]:
            writer.write(part)
            await asyncio.sleep(0)  # each part travels by itself
        writer.close()

    async with Receiver(script) as receiver, asyncio.timeout(5):
        assert (await sender.deliver(receiver.url(), "7", BODY)).status == 202


async def test_retry_after_is_read_in_a_malformed_head(sender: WebhookSender) -> None:
    head = b"HTTP/1.1 503 Busy\r\nno colon\r\nRetry-After : 7\r\n\r\n"
    async with Receiver(send(head)) as receiver:
        answer = await sender.deliver(receiver.url(), "7", BODY)

    assert (answer.status, answer.retry_after_ms) == (503, 7000)


async def test_a_malformed_head_inside_tls_is_read_too(sender: WebhookSender, tmp_path: Path) -> None:
    async with Receiver(send(OK + b"no colon\r\n\r\n"), tls=tmp_path) as receiver:
        assert (await sender.deliver(receiver.url(host="hooks.example"), "7", BODY)).status == 200


async def test_a_kept_connection_reads_each_response_afresh(sender: WebhookSender) -> None:
    async with Receiver(reply(), reply(503, retry_after="3"), reply(204, b"")) as receiver:
        answers = [await sender.deliver(receiver.url(), "7", BODY) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 503, 204]
    assert [answer.retry_after_ms for answer in answers] == [None, 3000, None]
    assert receiver.connections == 1
