"""Responses that never come to their status line, or never end: how much of them is read, and what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beeq import JobFailed, Queue
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.head import MAX_HEAD_BYTES, MAX_INTERIM, EndlessResponse, ResponseHead
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.delivery import MAX_REST_BYTES, DeliveryFailed, WebhookSender
from tests.webhooks.receiver import Receiver, Script, send, send_for_ever

EARLY = b"HTTP/1.1 103 Early Hints\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
#: Of this process, the receiver included. Without the bounds it was as much as an attempt lasts.
CPU_S = 3.0


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(AllowedHosts.parse("127.0.0.1"))
    yield sender
    await sender.aclose()


def in_bytes(head: bytes, part: bytes) -> Script:
    """Return a script that writes ``head``, and ``part`` for ever, each byte by itself."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            for byte in part:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)  # each travels by itself
                await writer.drain()

    return answer


WITHOUT_A_STATUS = {
    "interim responses": send_for_ever(b"", (EARLY + b"\r\n") * 1000),
    "interim responses of many lines": send_for_ever(b"", EARLY + b"a: b\r\n" * 9000 + b"\r\n"),
    "100 and 102 in turn": send_for_ever(
        b"", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    ),
    "one interim head": send_for_ever(EARLY, b"a: b\r\n" * 1000),
    "one line of an interim head": send_for_ever(EARLY, b"a" * 1000),
    "empty lines": send_for_ever(b"", b"\r\n" * 1000),
    "empty lines behind an interim head": send_for_ever(EARLY + b"\r\n", b"\r\n" * 1000),
    "interim responses byte by byte": in_bytes(b"", EARLY + b"\r\n"),
}


@pytest.mark.parametrize("script", WITHOUT_A_STATUS.values(), ids=WITHOUT_A_STATUS)
async def test_what_comes_before_the_status_line_has_an_end(sender: WebhookSender, script: Script) -> None:
    async with Receiver(script) as receiver, asyncio.timeout(20):
        began_s = time.process_time()
        with pytest.raises(DeliveryFailed, match="did not come to its status line: more than 32 interim"):
            await sender.deliver(receiver.url(), "7", b"{}")
        assert time.process_time() - began_s < CPU_S
        await receiver.until_open(0)


BEHIND_THE_STATUS = {
    "header lines": send_for_ever(OK, b"a: b\r\n" * 1000),
    "chunks of one byte": send_for_ever(CHUNKED, b"1\r\na\r\n" * 1000),
    "chunks with long extensions": send_for_ever(CHUNKED, b"1;" + b"e" * 80_000 + b"\r\na\r\n"),
    "one chunk's extension": send_for_ever(CHUNKED + b"1;", b"e" * 1000),
    "trailers": send_for_ever(CHUNKED + b"0\r\n", b"a: b\r\n" * 1000),
    "a body": send_for_ever(OK + b"\r\n", b"e" * 1000),
    "another response": send_for_ever(OK + b"content-length: 0\r\n\r\n", OK + b"\r\n"),
}


@pytest.mark.parametrize("script", BEHIND_THE_STATUS.values(), ids=BEHIND_THE_STATUS)
async def test_what_follows_the_status_line_is_read_so_far(sender: WebhookSender, script: Script) -> None:
    async with Receiver(script) as receiver, asyncio.timeout(20):
        began_s = time.process_time()
        assert (await sender.deliver(receiver.url(), "7", b"{}")).status == 200
        assert time.process_time() - began_s < CPU_S
        await receiver.until_open(0)


async def test_as_many_interim_responses_as_allowed_are_no_fault(sender: WebhookSender) -> None:
    async with Receiver(send((EARLY + b"\r\n") * MAX_INTERIM, OK, b"content-length: 0\r\n\r\n")) as receiver:
        assert (await sender.deliver(receiver.url(), "7", b"{}")).status == 200


def test_one_interim_response_more_is_a_fault() -> None:
    with pytest.raises(EndlessResponse):
        ResponseHead().feed((EARLY + b"\r\n") * (MAX_INTERIM + 1) + OK)


def test_interim_heads_are_bounded_by_their_bytes_too() -> None:
    head = ResponseHead()
    line = b"a" * 1022 + b"\r\n"
    head.feed(EARLY)
    for _ in range(MAX_HEAD_BYTES // len(line) - 1):
        assert head.feed(line) == b""
    with pytest.raises(EndlessResponse):
        head.feed(line)


def test_a_final_head_behind_interim_ones_has_its_own_bound() -> None:
    head = ResponseHead()
    head.feed(EARLY + b"a" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n")
    head.feed(OK + b"b: " + b"c" * 2000 + b"\r\n\r\n")

    assert (head.status, len(head.headers)) == (200, 1)


def test_the_rest_is_bounded_where_that_was_asked_for() -> None:
    assert ResponseHead().feed(OK + b"\r\n" + b"x" * MAX_REST_BYTES)
    with pytest.raises(EndlessResponse, match=f"more than {MAX_REST_BYTES} bytes"):
        ResponseHead(max_rest_bytes=MAX_REST_BYTES).feed(OK + b"\r\n" + b"x" * MAX_REST_BYTES)


async def test_a_worker_goes_on_beside_endless_interim_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the embedded server keeps its folder
    processor = WebhookProcessor(ProcessorSettings(webhook_allow_hosts="127.0.0.1"))
    endless = WITHOUT_A_STATUS["interim responses"]
    async with (
        Receiver(endless) as hostile,
        Receiver() as good,
        Queue("webhook-processing", redis="embedded:") as queue,
    ):
        queue.process(processor, concurrency=1)
        bad = await queue.enqueue(
            {"webhookUrl": hostile.url(), "payload": {}}, retries=2, backoff="immediate"
        )
        fine = await queue.enqueue({"webhookUrl": good.url(), "payload": {}})
        with pytest.raises(JobFailed, match="did not come to its status line"):
            await bad.result(timeout=20_000)
        assert (await fine.result(timeout=20_000))["status"] == 200
        assert len(hostile.requests) == 3  # retried, as after any response that is not HTTP
    await processor.close()
